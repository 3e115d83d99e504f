//! Framing: a 32-bit length in network byte order, then JSON.

use std::io;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::bytes::Bytes;
use tokio_util::bytes::BytesMut;
use tokio_util::codec::Decoder;
use tokio_util::codec::Encoder;
use tokio_util::codec::LengthDelimitedCodec;
use tokio_util::codec::LengthDelimitedCodecError;

/// The longest message that is sent or taken, in octets.
pub const MAX_FRAME_LENGTH: usize = 16 << 20;

/// Messages of type `T`, one way.
#[derive(Debug)]
pub struct MessageCodec<T> {
    frames: LengthDelimitedCodec,
    message: PhantomData<fn(T) -> T>,
}

/// Why no message could be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A frame's length is beyond [`MAX_FRAME_LENGTH`].
    #[error("a message is longer than {MAX_FRAME_LENGTH} octets")]
    Oversize,
    /// The other side ended in the middle of a message.
    #[error("the connection ended in the middle of a message")]
    Truncated,
    /// A frame does not hold a message.
    #[error("`{start}` is no message: {error}")]
    Malformed {
        /// How it starts.
        start: String,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// The pipe failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

impl<T> Default for MessageCodec<T> {
    fn default() -> MessageCodec<T> {
        MessageCodec {
            frames: LengthDelimitedCodec::builder()
                .max_frame_length(MAX_FRAME_LENGTH)
                .new_codec(),
            message: PhantomData,
        }
    }
}

impl<T: DeserializeOwned> Decoder for MessageCodec<T> {
    type Item = T;
    type Error = CodecError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<T>, CodecError> {
        let Some(frame) = self.frames.decode(bytes).map_err(of_frame)? else {
            return Ok(None);
        };
        match serde_json::from_slice(&frame) {
            Ok(message) => Ok(Some(message)),
            Err(error) => Err(CodecError::Malformed {
                start: frame[..frame.len().min(60)].escape_ascii().to_string(),
                error,
            }),
        }
    }

    fn decode_eof(&mut self, bytes: &mut BytesMut) -> Result<Option<T>, CodecError> {
        match self.decode(bytes)? {
            None if !bytes.is_empty() => Err(CodecError::Truncated),
            decoded => Ok(decoded),
        }
    }
}

impl<T: Serialize> Encoder<&T> for MessageCodec<T> {
    type Error = CodecError;

    fn encode(&mut self, message: &T, bytes: &mut BytesMut) -> Result<(), CodecError> {
        let json = serde_json::to_vec(message).map_err(io::Error::from)?;
        self.frames
            .encode(Bytes::from(json), bytes)
            .map_err(of_frame)
    }
}

fn of_frame(error: io::Error) -> CodecError {
    match error.get_ref().is_some_and(
        <dyn std::error::Error + std::marker::Send + std::marker::Sync + 'static>::is::<
            LengthDelimitedCodecError,
        >,
    ) {
        true => CodecError::Oversize,
        false => CodecError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::ToAgent;

    fn codec() -> MessageCodec<ToAgent> {
        MessageCodec::default()
    }

    #[test]
    fn messages_come_back_one_by_one_however_they_are_cut() {
        let mut wire = BytesMut::new();
        codec().encode(&ToAgent::Ping, &mut wire).unwrap();
        codec().encode(&ToAgent::Ping, &mut wire).unwrap();
        assert_eq!(wire[..10], *b"\0\0\0\x06\"ping\"");
        let (mut reader, mut buffer, mut read) = (codec(), BytesMut::new(), 0);
        for byte in wire {
            buffer.extend_from_slice(&[byte]);
            read += usize::from(reader.decode(&mut buffer).unwrap() == Some(ToAgent::Ping));
        }
        assert_eq!((read, buffer.len()), (2, 0));
        assert!(reader.decode_eof(&mut buffer).unwrap().is_none());
    }

    #[test]
    fn a_bad_frame_is_an_error_that_says_what_was_there() {
        let read = |bytes: &[u8]| {
            codec()
                .decode_eof(&mut BytesMut::from(bytes))
                .unwrap_err()
                .to_string()
        };
        // What a text looks like when it is taken for a length.
        assert_eq!(
            read(b"bash: tunproof: command not found\n"),
            "a message is longer than 16777216 octets"
        );
        assert_eq!(
            read(b"\0\0\0\x06\"pi"),
            "the connection ended in the middle of a message"
        );
        assert!(read(b"\0\0\0\x06\"pong\"").starts_with("`\\\"pong\\\"` is no message: unknown"));
    }
}
