//! Interim responses (1xx) on their way to the stream that sends them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::task::{Context, Waker};

use http::{HeaderMap, Response};
use wire::ResponseHead;

/// Interim responses that may wait; those beyond are left out, as any of them may be (RFC 9110 15.2).
const WAITING: usize = 8;

/// Interim responses of one request. Whoever answers it puts them in, and its stream's task, which
/// alone writes to the stream, takes them out.
#[derive(Default)]
pub(crate) struct Interims(RefCell<Waiting>);

#[derive(Default)]
struct Waiting {
    responses: VecDeque<Response<()>>,
    waker: Option<Waker>,
}

impl Interims {
    /// Passes one on.
    pub(crate) fn inform(&self, head: &ResponseHead) {
        // `100` answers an expectation, which the body's first read does by itself.
        if head.status != 100
            && let Ok(response) = wire::map::response_to_http(head, HeaderMap::new())
        {
            self.put(response);
        }
    }

    pub(super) fn put(&self, response: Response<()>) {
        let mut waiting = self.0.borrow_mut();
        if waiting.responses.len() < WAITING {
            waiting.responses.push_back(response);
            if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
        }
    }

    /// The next one.
    pub(super) fn pop(&self) -> Option<Response<()>> {
        self.0.borrow_mut().responses.pop_front()
    }

    /// The next one; without one, the task is woken when there is.
    pub(super) fn take(&self, cx: &Context<'_>) -> Option<Response<()>> {
        let next = self.pop();
        if next.is_none() {
            self.0.borrow_mut().waker = Some(cx.waker().clone());
        }
        next
    }
}
