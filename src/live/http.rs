//! A small HTTP server for what others come to read: GET only, and bounded in connections, octets and time.
//!
//! It says what it was given to say. A request changes nothing, and starts nothing.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::Method;
use hyper::Request;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::ALLOW;
use hyper::header::CONTENT_TYPE;
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tokio::time::timeout;

/// How many are served at a time; one more takes the place of the oldest, so that whoever comes is heard, however many
/// there are that say nothing.
const CONNECTIONS: usize = 32;
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may take in all.
const WHOLE: Duration = Duration::from_secs(10);
/// How long a request's head may be, in octets.
const BUFFER: usize = 16 * 1024;
/// Between two tries where no connection can be taken: there are too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// What is said under a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its content type.
    pub kind: &'static str,
    /// Its text.
    pub text: String,
}

/// Finds the page of a path such as `/metrics`.
pub type Pages = dyn Fn(&str) -> Option<Page> + Send + Sync;

/// A socket that listens.
#[derive(Debug)]
pub struct Server(TcpListener);

impl Server {
    /// Listens at an address; in a runtime.
    ///
    /// # Errors
    ///
    /// If it is another's, or none of this host's.
    pub async fn listen(address: SocketAddr) -> io::Result<Server> {
        TcpListener::bind(address).await.map(Server)
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves for ever.
    pub async fn serve(&self, pages: Arc<Pages>) {
        let mut talks = VecDeque::<AbortHandle>::with_capacity(CONNECTIONS);
        loop {
            let Ok((stream, _)) = self.0.accept().await else {
                sleep(PAUSE).await;
                continue;
            };
            talks.retain(|talk| !talk.is_finished());
            if talks.len() == CONNECTIONS
                && let Some(oldest) = talks.pop_front()
            {
                oldest.abort();
            }
            let talk = tokio::spawn(talk(stream, Arc::clone(&pages)));
            talks.push_back(talk.abort_handle());
        }
    }
}

/// Answers one request.
async fn talk(stream: TcpStream, pages: Arc<Pages>) {
    let service = service_fn(|request: Request<_>| {
        let response = answer(request.method(), request.uri().path(), &*pages);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Who sends garbage, or nothing, or does not read, is hung up on.
    let _ = timeout(WHOLE, connection).await;
}

fn answer(method: &Method, path: &str, pages: &Pages) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    // A HEAD is a GET whose answer is not sent.
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let page = is_read.then(|| pages(path)).flatten();
    let (status, kind, text) = match (is_read, page) {
        (true, Some(page)) => (StatusCode::OK, page.kind, page.text),
        (true, None) => (StatusCode::NOT_FOUND, TEXT, "not found\n".to_owned()),
        (false, _) => {
            let text = "only GET\n".to_owned();
            (StatusCode::METHOD_NOT_ALLOWED, TEXT, text)
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if !is_read {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn page(path: &str) -> Option<Page> {
        (path == "/metrics").then(|| Page {
            kind: "text/plain",
            text: "up 1\n".to_owned(),
        })
    }

    /// Runs something beside a server on a port of the kernel's choice.
    fn beside<F: Future<Output = ()>>(client: impl FnOnce(SocketAddr) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Timeouts are over as soon as nothing else is left to do.
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
            let server = Server::listen(loopback).await.unwrap();
            let address = server.address().unwrap();
            tokio::select! {
                () = server.serve(Arc::new(page)) => unreachable!("it serves for ever"),
                () = client(address) => {}
            }
        });
    }

    /// What a server says to this, until it hangs up.
    async fn said(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may have heard enough, and hung up.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn it_says_what_it_was_given_to_whoever_gets() {
        beside(async |address| {
            for (request, status, ends) in [
                (
                    "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
                    "200",
                    "\r\n\r\nup 1\n",
                ),
                ("GET /metrics?a=b HTTP/1.0\r\n\r\n", "200", "\r\n\r\nup 1\n"),
                (
                    "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
                    "200",
                    "\r\n\r\n",
                ),
                (
                    "GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
                    "404",
                    "not found\n",
                ),
                (
                    "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
                    "405",
                    "only GET\n",
                ),
                ("DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", "405", "only GET\n"),
            ] {
                let answer = said(address, request.as_bytes()).await;
                let head = answer.split(' ').nth(1).unwrap_or_default();
                assert_eq!(head, status, "{request}{answer}");
                assert!(answer.ends_with(ends), "{request}{answer}");
            }
        });
    }

    #[test]
    fn garbage_and_heads_without_end_are_hung_up_on() {
        beside(async |address| {
            let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(4 * BUFFER));
            for request in [
                &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
                b"\0\0\0\0\r\n\r\n",
                b"GET\r\n\r\n",
                b"GET / HTTP/9.9\r\n\r\n",
                b"GET /%00\xff HTTP/1.1\r\n\r\n",
                long.as_bytes(),
            ] {
                let answer = said(address, request).await;
                assert!(!answer.contains(" 200 "), "{answer}");
            }
            let again = said(address, b"GET /metrics HTTP/1.0\r\n\r\n").await;
            assert!(again.ends_with("up 1\n"), "{again}");
        });
    }

    /// Beside which time stands still: it goes on where nothing else is left to do.
    async fn busy() {
        for _ in 0..100_000_000 {
            tokio::task::yield_now().await;
        }
        panic!("there is no answer, unless time goes on");
    }

    #[test]
    fn who_is_slow_keeps_nobody_waiting() {
        beside(async |address| {
            let ask = async {
                let mut slow = VecDeque::new();
                for _ in 0..3 * CONNECTIONS {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    stream.write_all(b"GET /metrics HT").await.unwrap();
                    slow.push_back(stream);
                }
                let answer = said(address, b"GET /metrics HTTP/1.0\r\n\r\n").await;
                assert!(answer.ends_with("up 1\n"), "{answer}");
                // The oldest has made room; the youngest may still say what it wants.
                let mut answer = Vec::new();
                let _ = slow.front_mut().unwrap().read_to_end(&mut answer).await;
                assert_eq!(answer, b"");
                let youngest = slow.back_mut().unwrap();
                youngest.write_all(b"TP/1.0\r\n\r\n").await.unwrap();
                youngest.read_to_end(&mut answer).await.unwrap();
                assert!(answer.ends_with(b"up 1\n"), "{answer:?}");
                slow
            };
            let slow = tokio::select! {
                slow = ask => slow,
                () = busy() => Default::default(),
            };
            // None of them has a place for long.
            for mut stream in slow {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        });
    }
}
