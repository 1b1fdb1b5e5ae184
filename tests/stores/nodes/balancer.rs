//! A small load balancer for TCP: it asks each node whether it is ready, and spreads connections over those that are.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::Trio;
use crate::harness::eventually;

/// Between two looks at whether a node is ready.
const CHECK_PERIOD: Duration = Duration::from_millis(50);

/// A node that does not answer for so long is not ready.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Balancer {
    pub(crate) address: SocketAddr,
    nodes: Arc<Nodes>,
    tasks: [JoinHandle<()>; 2],
}

struct Node {
    tls: SocketAddr,
    admin: SocketAddr,
    ready: AtomicBool,
}

struct Nodes {
    all: Vec<Node>,
    next: AtomicUsize,
    /// Which node a client's connection went to, by the client's address.
    taken: Mutex<HashMap<SocketAddr, usize>>,
    /// Connections that a killed node had.
    doomed: Mutex<HashSet<SocketAddr>>,
}

impl Balancer {
    /// Before these nodes, which keep their addresses when they begin anew.
    pub(crate) async fn before(trio: &Trio) -> Self {
        let node = |gateway: &crate::harness::Gateway| Node {
            tls: gateway.tls,
            admin: gateway.admin,
            ready: AtomicBool::new(true),
        };
        let nodes = Arc::new(Nodes {
            all: trio.nodes.iter().map(node).collect(),
            next: AtomicUsize::new(0),
            taken: Mutex::default(),
            doomed: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            tasks: [
                tokio::spawn(Arc::clone(&nodes).check()),
                tokio::spawn(Arc::clone(&nodes).accept(listener)),
            ],
            nodes,
        }
    }

    /// Notes that a node was killed, before it begins anew: what it had is lost.
    pub(crate) fn doom(&self, index: usize) {
        let taken = self.nodes.taken.lock().unwrap();
        let had = taken.iter().filter(|(_, node)| **node == index);
        let mut doomed = self.nodes.doomed.lock().unwrap();
        doomed.extend(had.map(|(client, _)| *client));
    }

    /// Whether a client's connection went to a node that was killed then.
    pub(crate) fn is_doomed(&self, client: SocketAddr) -> bool {
        self.nodes.doomed.lock().unwrap().contains(&client)
    }

    /// Waits until it takes a node for ready, or not.
    pub(crate) async fn sees(&self, index: usize, ready: bool) {
        eventually("the balancer's view of a node", async || {
            (self.nodes.all[index].ready.load(Ordering::SeqCst) == ready).then_some(())
        })
        .await;
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Nodes {
    async fn check(self: Arc<Self>) {
        loop {
            for node in &self.all {
                let ready = timeout(CHECK_TIMEOUT, is_ready(node.admin)).await;
                let ready = matches!(ready, Ok(Ok(true)));
                node.ready.store(ready, Ordering::SeqCst);
            }
            tokio::time::sleep(CHECK_PERIOD).await;
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut relays = JoinSet::new();
        while let Ok((client, peer)) = listener.accept().await {
            let nodes = Arc::clone(&self);
            relays.spawn(async move {
                if let Some(node) = nodes.connect(peer).await {
                    relay(client, node).await;
                }
            });
        }
    }

    /// A connection to the next node that is ready and takes one, or to any other where none is.
    async fn connect(&self, peer: SocketAddr) -> Option<TcpStream> {
        let first = self.next.fetch_add(1, Ordering::SeqCst);
        for wanted in [true, false] {
            for step in 0..self.all.len() {
                let index = (first + step) % self.all.len();
                let node = &self.all[index];
                if node.ready.load(Ordering::SeqCst) != wanted {
                    continue;
                }
                if let Ok(stream) = TcpStream::connect(node.tls).await {
                    self.taken.lock().unwrap().insert(peer, index);
                    return Some(stream);
                }
            }
        }
        None
    }
}

async fn relay(mut client: TcpStream, mut node: TcpStream) {
    let (_, _) = (client.set_nodelay(true), node.set_nodelay(true));
    // How it ends is seen at both ends.
    let _ = copy_bidirectional(&mut client, &mut node).await;
}

async fn is_ready(admin: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}
