//! A way to an engine that the test opens, shuts and cuts: what a network does.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// Connections end, and new ones at once.
    Shut,
    /// Nothing comes through, and nobody is told.
    Silent,
}

/// Passes connections to an engine on. Stops when dropped.
pub(crate) struct Gate {
    pub(crate) port: u16,
    state: watch::Sender<State>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Gate {
    pub(crate) async fn before(engine: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, watched) = watch::channel(State::Open);
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut relays = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let watched = watched.clone();
                // How it ends is seen at both ends.
                relays.spawn(async move { relay(stream, engine, watched).await });
            }
        });
        Self {
            port,
            state,
            connections,
            task,
        }
    }

    pub(crate) fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    /// How often somebody has tried to connect.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(
    client: TcpStream,
    engine: u16,
    mut watched: watch::Receiver<State>,
) -> io::Result<()> {
    if !open(&mut watched).await {
        return Ok(());
    }
    let engine = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], engine))).await?;
    for stream in [&client, &engine] {
        stream.set_nodelay(true)?;
    }
    let (from_client, to_client) = client.into_split();
    let (from_engine, to_engine) = engine.into_split();
    // Whichever ends first ends both.
    tokio::select! {
        ended = pass(from_client, to_engine, watched.clone()) => ended,
        ended = pass(from_engine, to_client, watched) => ended,
    }
}

/// Waits while it is silent, and says whether it is open then.
async fn open(watched: &mut watch::Receiver<State>) -> bool {
    let state = watched.wait_for(|state| *state != State::Silent).await;
    state.is_ok_and(|state| *state == State::Open)
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut watched: watch::Receiver<State>,
) -> io::Result<()> {
    let mut bytes = vec![0; 1 << 14];
    while open(&mut watched).await {
        let count = tokio::select! {
            count = from.read(&mut bytes) => count?,
            _ = watched.changed() => continue,
        };
        // What was read while it fell silent waits.
        if count == 0 || !open(&mut watched).await {
            break;
        }
        to.write_all(&bytes[..count]).await?;
    }
    Ok(())
}
