//! Where objects come from beside the HTTP API: something that is watched and gives changes as
//! whole sets.
//!
//! A source never hands out half of a change: what was edited together is applied together, and
//! what it cannot read it keeps as it last was. The HTTP API and the registry are asked, not
//! watched; they hand their sets to the same door, [`State::apply`].

use std::future::Future;
use std::time::Duration;

use crate::change::{Applied, ApplyError, ChangeSet};
use crate::state::State;

pub mod files;

/// Something that is watched.
pub trait Source: Send {
    /// Waits for the next change.
    fn next(&mut self) -> impl Future<Output = ChangeSet> + Send;

    /// Is told what became of the set that [`Source::next`] gave last.
    fn applied(&mut self, result: &Result<Applied, ApplyError>);
}

/// Applies what a source gives, for as long as there is somebody to apply it.
pub async fn follow(mut source: impl Source, state: State) {
    loop {
        let set = source.next().await;
        let result = state.apply(set).await;
        source.applied(&result);
        match result {
            Ok(_) => {}
            Err(ApplyError::Stopping) => return,
            // The disk may be full: what was not applied is offered again.
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}
