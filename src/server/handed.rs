//! Listening sockets that a service manager opened before the gateway began, and keeps when it ends (`LISTEN_FDS`, as systemd's
//! sd_listen_fds(3) tells of it). While one gateway leaves and the next has not begun, clients wait in their queue and are not
//! refused (CFG-3); and the right to bind a low port is the service manager's alone. Or those of a gateway that runs, whose place
//! this one takes ([`super::takeover`]).

use std::{
    net::{SocketAddr, TcpListener},
    ops::Not,
};

use listenfd::ListenFd;
use socket2::SockRef;

use super::StartError;

/// Sockets that nobody has asked for yet.
#[derive(Debug, Default)]
pub struct Handed {
    sockets: Vec<(SocketAddr, TcpListener)>,
    /// Whether they are those of a gateway that runs.
    is_succession: bool,
}

impl Handed {
    /// Takes what the environment of the process names, and removes it from there. To be called before there is a second thread:
    /// the environment belongs to all of them.
    ///
    /// # Errors
    /// [`StartError::Handed`] for a descriptor that is no TCP socket, or one that does not listen: serving on some of what was
    /// handed over would leave clients in a queue that nobody looks at.
    pub fn take() -> Result<Self, StartError> {
        let mut passed = ListenFd::from_env();
        let taken = (0..passed.len()).filter_map(|index| {
            let socket = passed.take_tcp_listener(index).transpose()?;
            Some(socket.map_err(|error| error.to_string()).and_then(checked))
        });
        let sockets = taken.collect::<Result<Vec<_>, _>>();
        let sockets = sockets.map_err(StartError::Handed)?;
        Ok(Self {
            sockets,
            is_succession: false,
        })
    }

    /// Sockets of a gateway that runs. Those of addresses that this one does not serve are left to it, which closes them when it
    /// leaves.
    ///
    /// # Errors
    /// [`StartError::Handed`] for one that does not listen.
    pub(super) fn taken_over(sockets: Vec<TcpListener>) -> Result<Self, StartError> {
        let sockets: Result<Vec<_>, _> = sockets.into_iter().map(checked).collect();
        Ok(Self {
            sockets: sockets.map_err(StartError::Handed)?,
            is_succession: true,
        })
    }

    /// Whether nothing was handed over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Whether a gateway still serves on what was handed over.
    #[must_use]
    pub fn is_succession(&self) -> bool {
        self.is_succession
    }

    /// The sockets of one address, at least as many as there are workers; `None` where none was handed over. Workers share the queue
    /// of a socket where fewer were handed over; with as many, which the manager opens with `ReusePort`, each has its own.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(super) fn claim(
        &mut self,
        address: SocketAddr,
        workers: usize,
    ) -> std::io::Result<Option<Vec<TcpListener>>> {
        let ours = self
            .sockets
            .extract_if(.., |(theirs, _)| *theirs == address);
        let ours: Vec<TcpListener> = ours.map(|(_, socket)| socket).collect();
        let shared = ours.iter().cycle().take(workers.max(ours.len()));
        let shared = shared.map(TcpListener::try_clone);
        let shared: Vec<_> = shared.collect::<Result<_, _>>()?;
        Ok(shared.is_empty().not().then_some(shared))
    }

    /// One socket of an address that no worker serves.
    #[must_use]
    pub fn claim_one(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let place = self.sockets.iter().position(|(at, _)| *at == address)?;
        Some(self.sockets.swap_remove(place).1)
    }

    /// To be called when everybody has claimed theirs.
    ///
    /// # Errors
    /// [`StartError::Handed`] when a socket is left, whose clients would wait for ever.
    pub fn finish(self) -> Result<(), StartError> {
        let Some((address, _)) = self.sockets.first().filter(|_| !self.is_succession) else {
            return Ok(());
        };
        Err(StartError::Handed(format!(
            "a socket on {address} was handed over, and none of server.listen, server.redirect_listen and server.admin_listen is \
             that address: write it as the service manager does (`ListenStream=8443` is [::]:8443), or take it out there"
        )))
    }
}

fn checked(socket: TcpListener) -> Result<(SocketAddr, TcpListener), String> {
    let told = |error: std::io::Error| error.to_string();
    let address = socket.local_addr().map_err(told)?;
    if !SockRef::from(&socket).is_listener().map_err(told)? {
        return Err(format!(
            "the socket on {address} does not listen: with systemd, `Accept=no` hands over one that does"
        ));
    }
    socket.set_nonblocking(true).map_err(told)?;
    Ok((address, socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(count: usize) -> (Handed, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let sockets = (0..count).map(|_| (address, socket.try_clone().unwrap()));
        let sockets = sockets.collect();
        let handed = Handed {
            sockets,
            is_succession: false,
        };
        (handed, address)
    }

    #[test]
    fn cfg_3_every_worker_and_every_socket_has_its_share() {
        for (handed_over, workers, want) in [(1, 1, 1), (1, 4, 4), (3, 2, 3), (2, 3, 3), (4, 4, 4)]
        {
            let (mut handed, address) = open(handed_over);
            let sockets = handed.claim(address, workers).unwrap().unwrap();
            assert_eq!(sockets.len(), want, "{handed_over} for {workers}");
            assert!(handed.finish().is_ok());
        }
    }

    #[test]
    fn cfg_3_what_nobody_claims_is_refused() {
        let (mut handed, address) = open(2);
        let another = SocketAddr::from(([127, 0, 0, 1], 1));
        assert!(handed.claim(another, 2).unwrap().is_none());
        assert!(handed.claim_one(another).is_none());
        assert!(handed.claim_one(address).is_some());
        let error = handed.finish().unwrap_err().to_string();
        assert!(error.contains(&address.to_string()), "{error}");
    }
}
