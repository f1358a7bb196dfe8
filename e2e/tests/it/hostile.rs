//! What comes from whoever wants to break in, or to break it.

mod flood;
mod giant;
mod slow;
mod smuggling;
mod watch;
