//! The supervisor behind `tulle run`: one program, its proxy, and their life together.

pub(crate) mod state;
