//! gRPC's health checking protocol (`grpc.health.v1.Health/Check`), as proxies ask it of endpoints: a
//! message each way, with the frame that gRPC puts around it. Here because protobuf types end here.

use prost::Message as _;
use prost::bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The path of the method.
pub const PATH: &str = "/grpc.health.v1.Health/Check";
/// A byte for the compression and four for the length.
const FRAME: usize = 5;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `ServingStatus.SERVING`.
const SERVING: i32 = 1;

/// The body of a call that asks about a service; empty for the whole server.
pub fn question(service: &str) -> Bytes {
    let message = HealthCheckRequest {
        service: service.to_owned(),
    };
    let length = message.encoded_len();
    let mut body = BytesMut::with_capacity(FRAME + length);
    body.put_u8(0);
    body.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    body.put_slice(&message.encode_to_vec());
    body.freeze()
}

/// Whether the body of an answer says that the service serves; the error says what else it says.
pub fn answer(mut body: Bytes) -> Result<(), String> {
    if body.len() < FRAME {
        return Err("the check was answered without a message: is grpc.health.v1.Health served, and this service known there?".to_owned());
    }
    body.advance(FRAME);
    match HealthCheckResponse::decode(body) {
        Ok(response) if response.status == SERVING => Ok(()),
        Ok(response) => Err(format!(
            "it says that it is not serving (status {})",
            response.status
        )),
        Err(error) => Err(format!("the answer to the check is malformed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_and_answer_are_those_of_the_protocol() {
        assert_eq!(&question("")[..], b"\0\0\0\0\0");
        assert_eq!(&question("shop.A")[..], b"\0\0\0\0\x08\n\x06shop.A");
        let said = |body: &'static [u8]| answer(Bytes::from_static(body));
        assert_eq!(said(b"\0\0\0\0\x02\x08\x01"), Ok(()));
        for (body, why) in [
            (&b"\0\0\0\0\x02\x08\x02"[..], "not serving (status 2)"),
            (b"\0\0\0\0\0", "not serving (status 0)"),
            (b"", "without a message"),
            (b"\0\0\0\0\x01\x08", "malformed"),
        ] {
            let found = said(body).expect_err("it fails");
            assert!(found.contains(why), "{found}");
        }
    }
}
