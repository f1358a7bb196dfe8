//! Telling a plain TCP connection from what is wrapped around one.
//!
//! Who copies bytes is generic over what it copies; two plain connections it may splice. Asking
//! every caller for a bound would burden those that have nothing to gain, so the type is looked at
//! here. Only types without lifetimes are asked for, which makes that exact.

use std::any::TypeId;
use std::marker::PhantomData;

use tokio::net::TcpStream;

use crate::prefixed::Prefixed;

/// The TCP connection that `stream` is, if it is nothing more: all that is read or written there
/// would go straight to the socket.
pub(crate) fn plain<S>(stream: &S) -> Option<&TcpStream> {
    if let Some(stream) = same::<S, Prefixed<TcpStream>>(stream) {
        return stream.prefix().is_empty().then(|| stream.inner());
    }
    same::<S, TcpStream>(stream)
}

/// `stream` as a `T`, if that is what it is. `T` has no lifetime parameters: [`Owned`] is private.
fn same<S, T: Owned>(stream: &S) -> Option<&T> {
    (erased_id::<S>() == TypeId::of::<T>()).then(|| {
        // SAFETY: but for lifetimes, S and T are the same type, and T has none.
        #[expect(unsafe_code, reason = "a downcast of what need not be 'static")]
        unsafe {
            &*std::ptr::from_ref(stream).cast::<T>()
        }
    })
}

/// Types without any lifetime in them.
trait Owned: 'static {}

impl Owned for TcpStream {}
impl Owned for Prefixed<TcpStream> {}

/// The id of a type with its lifetimes taken for `'static`.
fn erased_id<T>() -> TypeId {
    trait Id {
        fn id(&self) -> TypeId
        where
            Self: 'static;
    }
    impl<T> Id for PhantomData<T> {
        fn id(&self) -> TypeId
        where
            Self: 'static,
        {
            TypeId::of::<T>()
        }
    }
    let marker = PhantomData::<T>;
    let erased: &dyn Id = &marker;
    // SAFETY: only the lifetime bound of the trait object changes; what is called through it reads
    // nothing but the type's id, and no value of T is reached.
    #[expect(
        unsafe_code,
        reason = "TypeId asks for 'static, which says nothing here"
    )]
    let erased = unsafe { std::mem::transmute::<&dyn Id, &(dyn Id + 'static)>(erased) };
    erased.id()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_connection_with_nothing_read_ahead_is_plain() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        assert!(plain(&stream).is_some());
        assert!(plain(&&stream).is_none());
        let stream = Prefixed::new(stream, &b"x"[..]);
        assert!(plain(&stream).is_none(), "a byte is still to be read");
        let (stream, _) = stream.into_parts();
        let stream = Prefixed::new(stream, bytes::Bytes::new());
        assert_eq!(plain(&stream).unwrap().peer_addr().unwrap(), address);
        assert!(plain(&tokio::io::duplex(1).0).is_none());
    }
}
