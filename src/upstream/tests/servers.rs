//! Several servers: which one a request goes to, and what becomes of it when that one is not there.

use std::cell::Cell;

use super::*;

/// An upstream of servers that answer with their place, and how often each was connected to.
async fn several(count: usize, balance: Balance) -> (UpstreamSettings, Vec<Rc<Cell<usize>>>) {
    const ANSWERS: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n0",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n2",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n3",
    ];
    let mut servers = Vec::new();
    let mut connections = Vec::new();
    for answer in &ANSWERS[..count] {
        let (settings, count) = upstream(vec![vec![answer; 1000]]).await;
        servers.extend(settings.servers);
        connections.push(count);
    }
    let settings = UpstreamSettings {
        servers,
        balance,
        ..settings(1)
    };
    (settings, connections)
}

/// A port that refuses connections.
pub(super) async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// A port whose queue of connections is full: a dial is swallowed. It stays so while the sockets are held.
pub(super) async fn black_hole() -> (u16, Vec<socket2::Socket>) {
    let socket = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let listener = socket().unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = vec![listener];
    for _ in 0..4 {
        let filler = socket().unwrap();
        filler.set_nonblocking(true).unwrap();
        let _ = filler.connect(&address);
        held.push(filler);
    }
    (address.as_socket().unwrap().port(), held)
}

fn client(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

async fn answered_by(pools: &Pools, upstream: &Arc<Upstream>, from: IpAddr) -> String {
    let response = get_from(pools, upstream, from).await.unwrap();
    text(response).await.unwrap()
}

#[tokio::test]
async fn servers_take_turns() {
    local(async {
        let (settings, _) = several(3, Balance::RoundRobin).await;
        let (pools, upstream) = (Pools::new(1), make(settings));
        let mut order = String::new();
        for _ in 0..9 {
            order += &answered_by(&pools, &upstream, client(1)).await;
        }
        assert_eq!(order, "012012012");
    })
    .await;
}

#[tokio::test]
async fn the_server_with_fewer_requests_under_way_is_taken() {
    local(async {
        let (settings, _) = several(2, Balance::LeastRequests).await;
        let (pools, upstream) = (Pools::new(1), make(settings));
        let busy = get(&pools, &upstream).await.unwrap();
        // An idle connection is no load: the other server stays the better one however often it was used.
        let free = answered_by(&pools, &upstream, client(1)).await;
        for _ in 0..20 {
            assert_eq!(answered_by(&pools, &upstream, client(1)).await, free);
        }
        drop(busy);
    })
    .await;
}

#[tokio::test]
async fn equal_servers_share_the_requests() {
    local(async {
        let (settings, _) = several(3, Balance::LeastRequests).await;
        let (pools, upstream) = (Pools::new(1), make(settings));
        let mut counts = [0; 3];
        for _ in 0..300 {
            let place = answered_by(&pools, &upstream, client(1)).await;
            counts[place.parse::<usize>().unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| *count > 40), "{counts:?}");
    })
    .await;
}

#[tokio::test]
async fn a_client_stays_with_its_server_and_moves_only_when_that_goes() {
    for balance in [Balance::HashIp, Balance::HashUser] {
        local(async {
            let (settings, _) = several(4, balance).await;
            let (pools, upstream) = (Pools::new(1), make(settings.clone()));
            let mut before = Vec::new();
            for number in 0..64 {
                let place = answered_by(&pools, &upstream, client(number)).await;
                assert_eq!(place, answered_by(&pools, &upstream, client(number)).await);
                before.push(place);
            }
            for place in ["0", "1", "2", "3"] {
                let count = before.iter().filter(|other| *other == place).count();
                assert!(count > 4, "server {place} has {count} of 64");
            }
            // Another process with the last server gone, and the others in another order.
            let mut fewer = settings;
            fewer.servers.pop();
            fewer.servers.reverse();
            let (pools, upstream) = (Pools::new(1), make(fewer));
            for (number, place) in (0..).zip(&before) {
                let now = answered_by(&pools, &upstream, client(number)).await;
                assert!(place == "3" || *place == now, "{number} moved from {place}");
            }
        })
        .await;
    }
}

#[tokio::test]
async fn addresses_of_one_ipv6_network_stay_together() {
    local(async {
        let (settings, _) = several(4, Balance::HashIp).await;
        let (pools, upstream) = (Pools::new(1), make(settings));
        let mut places = std::collections::BTreeSet::new();
        for host in 1..20 {
            let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, host);
            places.insert(answered_by(&pools, &upstream, address.into()).await);
        }
        assert_eq!(places.len(), 1, "{places:?}");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_refuses_connections_is_passed_over() {
    for balance in [
        Balance::HashIp,
        Balance::HashUser,
        Balance::LeastRequests,
        Balance::RoundRobin,
    ] {
        local(async {
            let (mut settings, _) = several(2, balance).await;
            settings.servers.insert(1, server(closed_port().await));
            let (pools, upstream) = (Pools::new(1), make(settings));
            for number in 0..30 {
                answered_by(&pools, &upstream, client(number)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn with_no_server_there_the_upstream_is_unreachable() {
    local(async {
        let servers = vec![server(closed_port().await), server(closed_port().await)];
        let upstream = make(UpstreamSettings {
            servers,
            ..settings(1)
        });
        let refusal = get(&Pools::new(1), &upstream).await.unwrap_err();
        assert_eq!(refusal, Rejection::UpstreamUnreachable);
    })
    .await;
}

#[tokio::test]
async fn up_4_a_server_that_swallows_connections_leaves_time_for_another() {
    local(async {
        let (mut settings, _) = several(1, Balance::RoundRobin).await;
        let (port, held) = black_hole().await;
        settings.servers.insert(0, server(port));
        settings.connect_timeout = Duration::from_millis(400);
        let (pools, upstream) = (Pools::new(1), make(settings));
        let begun = std::time::Instant::now();
        assert_eq!(answered_by(&pools, &upstream, client(1)).await, "0");
        assert!(begun.elapsed() >= Duration::from_millis(200));
        drop(held);
    })
    .await;
}

#[tokio::test]
async fn up_2_a_request_that_was_sent_goes_to_no_other_server() {
    local(async {
        let (mut settings, connections) = several(1, Balance::RoundRobin).await;
        let (closes, _) = upstream(vec![vec![b""]]).await;
        settings.servers.insert(0, closes.servers[0].clone());
        let (pools, upstream) = (Pools::new(1), make(settings));
        let refusal = get(&pools, &upstream).await.unwrap_err();
        assert_eq!(refusal, Rejection::UpstreamUnreachable);
        assert_eq!(connections[0].get(), 0);
    })
    .await;
}

#[tokio::test]
async fn up_4_caps_hold_for_each_server() {
    local(async {
        let (settings, _) = several(2, Balance::RoundRobin).await;
        let (pools, upstream) = (Pools::new(1), make(settings));
        let mut held = Vec::new();
        for server in &upstream.servers {
            for _ in 0..2 {
                held.push(pools.of(server).lease(false, DIAL).await.unwrap());
            }
        }
        let pool = pools.of(&upstream.servers[0]);
        let waiting = pool.lease(false, DIAL);
        let mut waiting = std::pin::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        assert_eq!((pool.load(), pools.of(&upstream.servers[1]).load()), (3, 2));
        drop(held);
        assert!(waiting.await.is_ok());
    })
    .await;
}
