//! Guarantees of the design. Tests of a guarantee have its number in their names; other tests of a file support them.
//!
//! | guarantee | verified here by | and by |
//! |---|---|---|
//! | 1 no command of an earlier leadership starts after one of a later one | `fencing`, `takeover` | `lifecycle`, simulation |
//! | 2 when faults stop, no pod is left off | `convergence` (and `make chaos`), `kill_points` | simulation |
//! | 3 an outage of the store restarts no sub-process | `outages`, `session_faults`, `lost_messages` | simulation |
//! | 4 dead pods are in no view, numbers stay, one start per generation | `at_most_once`, `kill_points` | simulation |
//! | 5 a plugin stops no pod and sees only what it was granted | `sandbox`, `plugin_isolation` | `host/tests/plugin` |
//! | 6 no child is left behind, no exit status lost | `children`, `process_tree`, `shutdown`, `restricted_environments` | `host/tests/init` |
//! | 7 invalid input is rejected by name | `bad_input` | `tests/inputs` (and `make fuzz`), `control::tests::hostile` |
//!
//! *Simulation* is `host/crates/simulation`: whole clusters on the real machines, each decided by a seed.

mod at_most_once;
mod bad_input;
mod children;
mod convergence;
mod fencing;
mod kill_points;
mod lost_messages;
mod outages;
mod plugin_isolation;
mod process_tree;
mod restricted_environments;
mod sandbox;
mod session_faults;
mod shutdown;
mod takeover;
