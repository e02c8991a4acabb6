//! The connections of the HTTP server: how many there are, and when each of them ends. Nobody can
//! keep others out by holding connections and saying nothing: a new one always finds a place, and
//! the most silent one loses its own.
#![expect(
    clippy::disallowed_methods,
    reason = "it measures how long a connection has been silent, and ends connections"
)]

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::collections::BTreeMap;
use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

/// How many connections from other machines there are at most, because open files are few, and
/// Kafka and S3 need them. As many again may come from loopback, so that nobody outside can make
/// the health check fail.
const CONNECTIONS_MAX: usize = 64;
/// How many of them one address may have.
const CONNECTIONS_OF_ONE_MAX: usize = 16;
/// A connection lives at most for this time. A peer that still needs one makes a new one.
const CONNECTION_MAX: Duration = Duration::from_mins(1);
/// How long nothing may come or go: neither the headers of a request nor the next request. It is
/// longer than any answer takes.
const SILENT_MAX: Duration = Duration::from_secs(15);

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// Where it comes from.
    pub(super) from: SocketAddr,
    /// The address of this machine that it came to; `None` where the system does not say.
    pub(super) to: Option<SocketAddr>,
}

impl Connected<IncomingStream<'_, Bounded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        Peer {
            from: *stream.remote_addr(),
            to: stream.io().stream.local_addr().ok(),
        }
    }
}

/// A listener that bounds its connections in number and in time.
pub(super) struct Bounded {
    listener: TcpListener,
    places: Arc<Places>,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener) -> Self {
        let places = Arc::new(Places {
            started: Instant::now(),
            taken: Mutex::default(),
        });
        Self { listener, places }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        (Places::take(&self.places, stream, peer.ip()), peer)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The connections that there are, by the number of each.
struct Places {
    started: Instant,
    taken: Mutex<(u64, BTreeMap<u64, Place>)>,
}

struct Place {
    ip: IpAddr,
    /// When something came or went last, in ms after the start.
    active_ms: Arc<AtomicU64>,
    /// Dropping it ends the connection.
    _end: oneshot::Sender<()>,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Place>)> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Gives a new connection its place, for which another one may have to go.
    fn take(places: &Arc<Self>, stream: TcpStream, ip: IpAddr) -> Connection {
        let ip = ip.to_canonical();
        let active_ms = Arc::new(AtomicU64::new(places.now_ms()));
        let (end, ended) = oneshot::channel();
        let mut taken = places.lock();
        let (next, live) = &mut *taken;
        if let Some(silent) = one_to_go(live, ip) {
            live.remove(&silent);
        }
        let number = *next;
        *next += 1;
        let place = Place {
            ip,
            active_ms: Arc::clone(&active_ms),
            _end: end,
        };
        live.insert(number, place);
        drop(taken);
        Connection {
            stream,
            number,
            active_ms,
            ended,
            end: Box::pin(tokio::time::sleep(CONNECTION_MAX)),
            silence: Box::pin(tokio::time::sleep(SILENT_MAX)),
            places: Arc::clone(places),
        }
    }
}

/// The connection that must go before this address gets one more: the most silent one of the
/// address itself where that has its share, and else of all that are on the same side.
fn one_to_go(live: &BTreeMap<u64, Place>, ip: IpAddr) -> Option<u64> {
    let most_silent = |of: &dyn Fn(&IpAddr) -> bool, max: usize| {
        let of = || live.iter().filter(|(_, place)| of(&place.ip));
        let least = of().min_by_key(|(_, place)| place.active_ms.load(Ordering::Relaxed));
        least
            .filter(|_| of().count() >= max)
            .map(|(number, _)| *number)
    };
    if ip.is_loopback() {
        return most_silent(&IpAddr::is_loopback, CONNECTIONS_MAX);
    }
    most_silent(&|other| *other == ip, CONNECTIONS_OF_ONE_MAX)
        .or_else(|| most_silent(&|other| !other.is_loopback(), CONNECTIONS_MAX))
}

/// A connection that ends when its time is over, when it is silent for too long, or when another
/// one needs its place.
pub(super) struct Connection {
    stream: TcpStream,
    number: u64,
    active_ms: Arc<AtomicU64>,
    ended: oneshot::Receiver<()>,
    end: Pin<Box<Sleep>>,
    silence: Pin<Box<Sleep>>,
    places: Arc<Places>,
}

impl Connection {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        Pin::new(&mut self.ended).poll(cx).is_ready()
            || self.end.as_mut().poll(cx).is_ready()
            || self.silence.as_mut().poll(cx).is_ready()
    }

    fn note_activity(&mut self) {
        self.active_ms
            .store(self.places.now_ms(), Ordering::Relaxed);
        self.silence.as_mut().reset(Instant::now() + SILENT_MAX);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.places.lock().1.remove(&self.number);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.note_activity();
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if written.is_ready() {
            self.note_activity();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream as StdStream;

    const PROMETHEUS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 2));

    fn client(n: u8) -> IpAddr {
        IpAddr::from([10, 1, 1, n])
    }

    struct Server {
        listener: TcpListener,
        places: Arc<Places>,
    }

    impl Server {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let Bounded { listener, places } = Bounded::new(listener);
            Self { listener, places }
        }

        /// A connection that counts as one from this address, and its other end.
        async fn accept(&self, ip: IpAddr) -> (Connection, StdStream) {
            let other = StdStream::connect(self.listener.local_addr().unwrap()).unwrap();
            let (stream, _) = self.listener.accept().await.unwrap();
            (Places::take(&self.places, stream, ip), other)
        }
    }

    /// How reading ends when nothing comes; `None` while the connection is open.
    async fn ended(connection: &mut Connection) -> Option<ErrorKind> {
        let mut bytes = [0; 8];
        std::future::poll_fn(|cx| {
            let read = Pin::new(&mut *connection).poll_read(cx, &mut ReadBuf::new(&mut bytes));
            Poll::Ready(match read {
                Poll::Pending => None,
                Poll::Ready(read) => Some(read.unwrap_err().kind()),
            })
        })
        .await
    }

    #[tokio::test]
    async fn silent_connections_of_one_client_keep_nobody_out() {
        let server = Server::start().await;
        let (mut prometheus, _end) = server.accept(PROMETHEUS).await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(server.accept(client(1)).await);
        }
        assert_eq!(ended(&mut prometheus).await, None);
        let mut open = 0;
        for (connection, _) in &mut silent {
            open += usize::from(ended(connection).await.is_none());
        }
        assert_eq!(open, CONNECTIONS_OF_ONE_MAX);
        let (mut again, _end) = server.accept(PROMETHEUS).await;
        assert_eq!(ended(&mut again).await, None);
    }

    #[tokio::test]
    async fn a_new_connection_finds_a_place_when_all_are_taken() {
        let server = Server::start().await;
        let mut silent = Vec::new();
        for n in 0..CONNECTIONS_MAX {
            let n = u8::try_from(n / CONNECTIONS_OF_ONE_MAX).unwrap();
            silent.push(server.accept(client(n)).await);
        }
        let (mut local, _end) = server.accept("::ffff:127.0.0.1".parse().unwrap()).await;
        for (connection, _) in &mut silent {
            assert_eq!(ended(connection).await, None);
        }
        let (mut prometheus, _end) = server.accept(PROMETHEUS).await;
        assert_eq!(ended(&mut prometheus).await, None);
        assert_eq!(ended(&mut local).await, None);
        let mut open = 0;
        for (connection, _) in &mut silent {
            open += usize::from(ended(connection).await.is_none());
        }
        assert_eq!(open, CONNECTIONS_MAX - 1);
        drop(silent);
        assert_eq!(server.places.lock().1.len(), 2, "places are given back");
    }

    #[tokio::test]
    async fn a_silent_connection_ends_by_itself() {
        let server = Server::start().await;
        for which in 0..2 {
            let (mut connection, _end) = server.accept(PROMETHEUS).await;
            let now = Instant::now();
            match which {
                0 => connection.end.as_mut().reset(now),
                _ => connection.silence.as_mut().reset(now),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(ended(&mut connection).await, Some(ErrorKind::TimedOut));
        }
    }

    #[tokio::test]
    async fn who_speaks_is_not_silent() {
        use std::io::Write;
        let server = Server::start().await;
        let (mut connection, mut end) = server.accept(PROMETHEUS).await;
        connection
            .silence
            .as_mut()
            .reset(Instant::now() + Duration::from_secs(1));
        end.write_all(b"GET").unwrap();
        let mut bytes = [0; 3];
        tokio::io::AsyncReadExt::read_exact(&mut connection, &mut bytes)
            .await
            .unwrap();
        let left = connection.silence.deadline() - Instant::now();
        assert!(left > SILENT_MAX - Duration::from_secs(1), "{left:?}");
    }
}
