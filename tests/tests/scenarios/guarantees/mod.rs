//! What the design guarantees, one file each. Tests that hold a guarantee bear its number; the others of a file stand by
//! them. The machines are held to the same by simulation (`host/src/lifecycle`, `host/src/leader`).

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
