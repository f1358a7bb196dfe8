//! Tasks that have done their work and wait for more of the same kind.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::timer::Lull;

/// A task that was given nothing for so long, or for up to twice as long, ends.
const PATIENCE: Duration = Duration::from_secs(1);

/// Those who wait; when it is dropped they end.
pub(super) struct Crew<T>(Rc<Waiting<T>>);

/// The one that began to wait last is the last: it gets the next piece of work, so that surplus ones
/// end.
type Waiting<T> = RefCell<Vec<Rc<Seat<T>>>>;

/// Where work is put for a task.
struct Seat<T> {
    work: RefCell<Option<T>>,
    waker: RefCell<Waker>,
}

/// A task's place in a crew.
pub(super) struct Member<T> {
    waiting: Weak<Waiting<T>>,
    seat: Rc<Seat<T>>,
    lull: Lull,
}

impl<T> Default for Crew<T> {
    fn default() -> Self {
        Self(Rc::default())
    }
}

impl<T> Crew<T> {
    /// Gives `work` to a task that waits; back if there is none.
    pub(super) fn offer(&self, work: T) -> Option<T> {
        let Some(seat) = self.0.borrow_mut().pop() else {
            return Some(work);
        };
        seat.work.replace(Some(work));
        seat.waker.borrow().wake_by_ref();
        None
    }

    /// A place for a new task.
    pub(super) fn join(&self) -> Member<T> {
        Member {
            waiting: Rc::downgrade(&self.0),
            seat: Rc::new(Seat {
                work: RefCell::default(),
                waker: RefCell::new(Waker::noop().clone()),
            }),
            lull: Lull::of(PATIENCE),
        }
    }
}

impl<T> Drop for Crew<T> {
    fn drop(&mut self) {
        for seat in self.0.take() {
            seat.waker.borrow().wake_by_ref();
        }
    }
}

impl<T> Member<T> {
    /// Waits for more work. `None`: the task is to end.
    pub(super) async fn next(&mut self) -> Option<T> {
        self.lull.busy();
        self.waiting
            .upgrade()?
            .borrow_mut()
            .push(Rc::clone(&self.seat));
        poll_fn(|cx| {
            if let Some(work) = self.seat.work.take() {
                return Poll::Ready(Some(work));
            }
            let Some(waiting) = self.waiting.upgrade() else {
                return Poll::Ready(None);
            };
            if self.lull.poll(cx).is_ready() {
                let mut waiting = waiting.borrow_mut();
                waiting.retain(|seat| !Rc::ptr_eq(seat, &self.seat));
                return Poll::Ready(None);
            }
            self.seat.waker.borrow_mut().clone_from(cx.waker());
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    /// Counts the tasks that are alive, and what was done.
    #[derive(Default)]
    struct Tally {
        alive: Cell<usize>,
        done: Cell<usize>,
    }

    fn give(crew: &Crew<()>, tally: &Rc<Tally>) {
        if crew.offer(()).is_some() {
            let (mut member, tally) = (crew.join(), Rc::clone(tally));
            tally.alive.set(tally.alive.get() + 1);
            spawn_local(async move {
                tally.done.set(tally.done.get() + 1);
                while member.next().await.is_some() {
                    tally.done.set(tally.done.get() + 1);
                }
                tally.alive.set(tally.alive.get() - 1);
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_serves_again_and_ends_when_it_is_not_needed() {
        let local = LocalSet::new();
        local
            .run_until(async {
                let (crew, tally) = (Crew::default(), Rc::new(Tally::default()));
                for _ in 0..3 {
                    give(&crew, &tally);
                }
                tokio::task::yield_now().await;
                assert_eq!((tally.alive.get(), tally.done.get()), (3, 3));
                // One is enough for what comes one after another; the others end.
                for _ in 0..40 {
                    tokio::time::sleep(PATIENCE / 10).await;
                    give(&crew, &tally);
                }
                tokio::task::yield_now().await;
                assert_eq!((tally.alive.get(), tally.done.get()), (1, 43));
                tokio::time::sleep(3 * PATIENCE).await;
                assert_eq!(tally.alive.get(), 0);
                give(&crew, &tally);
                tokio::task::yield_now().await;
                assert_eq!((tally.alive.get(), tally.done.get()), (1, 44));
                drop(crew);
                tokio::task::yield_now().await;
                assert_eq!(tally.alive.get(), 0, "at once, not in a second");
            })
            .await;
    }
}
