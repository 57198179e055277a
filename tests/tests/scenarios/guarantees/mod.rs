//! What the design guarantees. Tests that hold a guarantee bear its number; the others of a file stand by them.
//!
//! | guarantee | held here by | and by |
//! |---|---|---|
//! | 1 no command of an earlier leadership begins after one of a later one | `fencing`, `takeover` | `lifecycle::{fence, order}`, simulation |
//! | 2 when faults stop, nobody is left off | `nobody_left_off` (and `make chaos`), `kill_points` | simulation |
//! | 3 an outage of the store touches no sub-process | `outages`, `half_alive`, `lost_messages` | simulation |
//! | 4 the dead are in no view, numbers stay, one start per generation | `once`, `kill_points` | simulation |
//! | 5 a plugin stops nobody and sees what it was granted | `sandbox`, `undisturbed` | `host/tests/plugin` |
//! | 6 no child is left behind, no exit status lost | `children`, `tree`, `leaving`, `surroundings` | `host/tests/init` |
//! | 7 bad input is refused by name | `bad_input` | `tests/inputs` (and `make fuzz`), `control::tests::hostile` |
//!
//! *Simulation* is `host/src/simulation`: whole clusters on the real machines, each decided by a seed.

mod bad_input;
mod children;
mod fencing;
mod half_alive;
mod kill_points;
mod leaving;
mod lost_messages;
mod nobody_left_off;
mod once;
mod outages;
mod sandbox;
mod surroundings;
mod takeover;
mod tree;
mod undisturbed;
