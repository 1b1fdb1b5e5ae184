//! The connection that commands go over. One task has it: it connects, sends what it is given, hands out the answers in
//! turn, and begins anew after a failure. While there is none, nobody waits: that is the breaker (RATE-5, FAULT-5).

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use super::{
    Report,
    connection::{Connection, Target, refused, text},
    pause::Pauses,
    resp::{Reply, command},
};
use crate::telemetry::Telemetry;

/// Takes a request from a budget.
const TAKE: &[u8] = include_bytes!("gcra.lua");

/// Takes from many budgets what was let through already.
const SETTLE: &[u8] = include_bytes!("share.lua");

/// Commands that wait for the connection, and as many that wait for answers: those of all account requests that may run at
/// once.
const QUEUE: usize = 1024;

/// How often an idle connection is tried.
const PING_PERIOD: Duration = Duration::from_secs(2);

/// How long that may take. A connection that nobody waits for need not be given up as soon.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// What a command is about. The digests of the scripts are known to the task alone.
pub(super) enum Command {
    /// To empty what was counted under a key.
    Forget(Vec<u8>),
    /// To take a request from so many budgets, or none: their keys come before three numbers for each.
    Take {
        keys: usize,
        arguments: Vec<Vec<u8>>,
    },
    /// To settle so many keys, which come before two numbers for each.
    Settle {
        keys: usize,
        arguments: Vec<Vec<u8>>,
    },
    /// To tell the other nodes, on this channel. The answer is how many hear it.
    Publish(Vec<u8>),
}

/// What the server calls the scripts.
struct Scripts {
    take: Vec<u8>,
    settle: Vec<u8>,
}

struct Call {
    command: Command,
    deadline: Instant,
    answer: Option<oneshot::Sender<Reply>>,
}

/// Hands commands to the task.
pub(super) struct Link {
    calls: mpsc::Sender<Call>,
    up: Arc<AtomicBool>,
    budget: Duration,
}

/// What the task has.
pub(super) struct Task {
    target: Arc<Target>,
    calls: mpsc::Receiver<Call>,
    up: Arc<AtomicBool>,
    telemetry: Arc<Telemetry>,
    report: Report,
    /// Whether the log says that it is gone.
    told: bool,
}

struct Waiting {
    deadline: Instant,
    answer: Option<oneshot::Sender<Reply>>,
}

impl Link {
    /// `budget`: how long a command may take.
    pub(super) fn new(
        target: Arc<Target>,
        telemetry: Arc<Telemetry>,
        report: Report,
        budget: Duration,
    ) -> (Self, Task) {
        let (calls, received) = mpsc::channel(QUEUE);
        let up = Arc::new(AtomicBool::new(false));
        let task = Task {
            target,
            calls: received,
            up: Arc::clone(&up),
            telemetry,
            report,
            told: false,
        };
        (Self { calls, up, budget }, task)
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Sends a command and waits for its answer within the budget; `None` where there is no answer, at once where there is no
    /// connection.
    pub(super) async fn ask(&self, command: Command) -> Option<Reply> {
        self.ask_within(command, self.budget).await
    }

    /// The same within another time. Beyond it the connection is given up.
    pub(super) async fn ask_within(&self, command: Command, patience: Duration) -> Option<Reply> {
        let (answer, answered) = oneshot::channel();
        self.send(command, patience, Some(answer))?;
        timeout(patience, answered).await.ok()?.ok()
    }

    /// Sends a command whose answer nobody waits for, where there is a connection.
    pub(super) fn tell(&self, command: Command) {
        let _ = self.send(command, PING_TIMEOUT, None);
    }

    fn send(
        &self,
        command: Command,
        patience: Duration,
        answer: Option<oneshot::Sender<Reply>>,
    ) -> Option<()> {
        let call = Call {
            command,
            deadline: Instant::now() + patience,
            answer,
        };
        // Full: whoever asks decides alone, and nothing is kept waiting.
        self.is_up().then(|| self.calls.try_send(call).ok())?
    }
}

impl Task {
    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut pauses = Pauses::default();
        loop {
            let begun = Instant::now();
            let ended = match self.begin().await {
                Ok((mut connection, scripts)) => {
                    self.up.store(true, Ordering::Release);
                    self.telemetry.cluster_up(true);
                    (self.report)(Ok(()));
                    self.serve(&mut connection, &scripts).await
                }
                Err(error) => Err(error),
            };
            self.up.store(false, Ordering::Release);
            self.telemetry.cluster_up(false);
            let Err(error) = ended else {
                return;
            };
            self.tell_lost(&error);
            // Whoever waits decides alone now.
            while self.calls.try_recv().is_ok() {}
            sleep(pauses.after(begun.elapsed())).await;
        }
    }

    /// Connects, and gives the scripts to the server, which answers with their digests.
    async fn begin(&self) -> io::Result<(Connection, Scripts)> {
        let mut connection = self.target.connect().await?;
        let mut load = async |script| {
            let load = command(&[b"SCRIPT", b"LOAD", script]);
            text(connection.ask_in_time(&load).await?)
        };
        let scripts = Scripts {
            take: load(TAKE).await?,
            settle: load(SETTLE).await?,
        };
        Ok((connection, scripts))
    }

    /// Serves until a failure, or until nobody can ask any more.
    async fn serve(&mut self, connection: &mut Connection, scripts: &Scripts) -> io::Result<()> {
        let begun = Instant::now();
        let mut waiting: VecDeque<Waiting> = VecDeque::new();
        let mut pings = interval(PING_PERIOD);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let first = waiting.iter().map(|one| one.deadline).min();
            let late = async {
                match first {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                reply = connection.replies.next() => {
                    let reply = refused(reply?)?;
                    // An answer that nobody asked for would be taken for the next one's.
                    let first = waiting.pop_front();
                    let first = first.ok_or_else(|| io::Error::other("it answered unasked"))?;
                    if let Some(answer) = first.answer {
                        let _ = answer.send(reply);
                    }
                }
                () = late => return Err(io::ErrorKind::TimedOut.into()),
                call = self.calls.recv(), if waiting.len() < QUEUE => {
                    let Some(call) = call else { return Ok(()) };
                    let bytes = written(&call.command, scripts);
                    let entry = Waiting { deadline: call.deadline, answer: call.answer };
                    send(connection, &bytes, entry, &mut waiting).await?;
                }
                _ = pings.tick() => {
                    self.tell_back(begun.elapsed());
                    let entry = Waiting { deadline: Instant::now() + PING_TIMEOUT, answer: None };
                    send(connection, &command(&[b"PING"]), entry, &mut waiting).await?;
                }
            }
        }
    }

    /// One line when it begins, however often it is tried again.
    fn tell_lost(&mut self, error: &io::Error) {
        (self.report)(Err(error.to_string()));
        if !self.told {
            self.told = true;
            tracing::error!(
                event = "cluster_lost",
                %error,
                "Redis cannot be used: each node counts alone until it is back, what /auth counts at half of the limits, clients and routes at the whole of theirs"
            );
        }
    }

    /// One line when it is over and stays so.
    fn tell_back(&mut self, held: Duration) {
        if self.told && Pauses::settled(held) {
            self.told = false;
            tracing::info!(event = "cluster_back", "Redis is used again");
        }
    }
}

async fn send(
    connection: &mut Connection,
    bytes: &[u8],
    entry: Waiting,
    waiting: &mut VecDeque<Waiting>,
) -> io::Result<()> {
    let sent = tokio::time::timeout_at(entry.deadline, connection.send(bytes)).await;
    waiting.push_back(entry);
    sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn written(call: &Command, scripts: &Scripts) -> Vec<u8> {
    let (script, keys, arguments) = match call {
        // Needs no right that the scripts do not need too.
        Command::Forget(key) => return command(&[b"SET", key, b"0 0", b"PX", b"1"]),
        Command::Publish(channel) => return command(&[b"PUBLISH", channel, b"1"]),
        Command::Settle { keys, arguments } => (&scripts.settle, keys, arguments),
        Command::Take { keys, arguments } => (&scripts.take, keys, arguments),
    };
    let keys = keys.to_string();
    let head = [b"EVALSHA".as_slice(), script, keys.as_bytes()];
    let arguments = arguments.iter().map(Vec::as_slice);
    command(&head.into_iter().chain(arguments).collect::<Vec<_>>())
}
