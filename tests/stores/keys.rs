//! Signing keys in the store: what was read is what is replaced, whoever else is at it. KEY-4, STORE-2, STORE-6.

use portcullis::store::{KEYS_MAX, RingRead, SealedKey, SealedRing, Store};

use crate::place::Place;

crate::on_both!(
    key_4_a_ring_takes_the_place_of_the_one_that_was_read_and_of_no_other,
    key_4_of_several_nodes_that_begin_a_ring_one_does,
    key_4_of_several_nodes_that_change_a_ring_one_does_each_time,
    key_5_what_is_no_sealed_key_is_not_kept,
    store_6_a_reader_is_told_of_a_change_and_of_nothing_else,
);

fn key(kid: &str, from: u64) -> SealedKey {
    SealedKey {
        kid: kid.into(),
        algorithm: "ES256".into(),
        from,
        until: (from > 1).then_some(from + 1000),
        encryption: "0123456789abcdef".into(),
        sealed: vec![7; 200].into(),
    }
}

fn ring(revision: &str, keys: &[SealedKey]) -> SealedRing {
    SealedRing {
        revision: revision.into(),
        keys: keys.to_vec(),
    }
}

async fn read(node: &dyn Store, known: Option<&str>) -> RingRead {
    node.signing_keys(known.map(Into::into)).await.unwrap()
}

async fn put(node: &dyn Store, expected: Option<&str>, ring: SealedRing) -> bool {
    let expected = expected.map(Into::into);
    node.replace_signing_keys(expected, ring).await.unwrap()
}

async fn key_4_a_ring_takes_the_place_of_the_one_that_was_read_and_of_no_other(place: Place) {
    let (node, other) = (place.node(), place.node());
    assert_eq!(read(&*node, None).await, RingRead::Absent);
    assert!(!put(&*node, Some("none"), ring("a", &[key("one", 0)])).await);
    assert_eq!(read(&*other, None).await, RingRead::Absent);
    let first = ring("a", &[key("one", 0)]);
    assert!(put(&*node, None, first.clone()).await);
    for late in [None, Some("b"), Some("")] {
        assert!(!put(&*other, late, ring("b", &[key("two", 5)])).await);
    }
    assert_eq!(read(&*other, None).await, RingRead::Changed(first));
    // In the order of their times; the extremes are kept as they are.
    let latest = SealedKey {
        until: None,
        sealed: vec![0; 65_536].into(),
        ..key("late \"'\u{e9}", 1 << 40)
    };
    let keys = [latest.clone(), key("one", 0), key("two", 5)];
    assert!(put(&*other, Some("a"), ring("b", &keys)).await);
    let sorted = ring("b", &[key("one", 0), key("two", 5), latest]);
    assert_eq!(read(&*node, None).await, RingRead::Changed(sorted));
    assert!(put(&*other, Some("b"), ring("c", &[])).await);
    assert_eq!(read(&*node, None).await, RingRead::Changed(ring("c", &[])));
}

async fn key_4_of_several_nodes_that_begin_a_ring_one_does(place: Place) {
    let nodes: Vec<_> = (0..3).map(|_| place.node()).collect();
    let starts = nodes.iter().enumerate().map(|(index, node)| {
        let node = node.clone();
        let mine = ring(&format!("r{index}"), &[key(&format!("k{index}"), 0)]);
        tokio::spawn(async move { (put(&*node, None, mine.clone()).await, mine) })
    });
    let mut done = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        done.push(start.await.unwrap());
    }
    let won: Vec<_> = done.into_iter().filter(|(won, _)| *won).collect();
    assert_eq!(won.len(), 1);
    for node in &nodes {
        assert_eq!(
            read(&**node, None).await,
            RingRead::Changed(won[0].1.clone())
        );
    }
}

async fn key_4_of_several_nodes_that_change_a_ring_one_does_each_time(place: Place) {
    let node = place.node();
    assert!(put(&*node, None, ring("0", &[])).await);
    let worker = |name: usize| {
        let node = place.node();
        tokio::spawn(async move {
            let mut won = 0;
            for turn in 0.. {
                let RingRead::Changed(before) = read(&*node, None).await else {
                    panic!("the ring is gone");
                };
                if before.keys.len() >= 12 {
                    return won;
                }
                let kid = format!("{name}-{turn}");
                let mut keys = before.keys;
                keys.push(key(&kid, 0));
                let next = SealedRing {
                    revision: kid.as_str().into(),
                    keys,
                };
                won += usize::from(put(&*node, Some(&before.revision), next).await);
            }
            won
        })
    };
    let workers = [worker(1), worker(2), worker(3)];
    let mut won = 0;
    for worker in workers {
        won += worker.await.unwrap();
    }
    let RingRead::Changed(last) = read(&*node, None).await else {
        panic!("the ring is gone");
    };
    assert_eq!((won, last.keys.len()), (12, 12), "none was lost");
}

async fn key_5_what_is_no_sealed_key_is_not_kept(place: Place) {
    let node = place.node();
    assert!(put(&*node, None, ring("a", &[key("one", 0)])).await);
    // Too short for nonce and tag, or longer than any key; and two of one name.
    let odd = |length| SealedKey {
        sealed: vec![0; length].into(),
        ..key("odd", 0)
    };
    let twice = [key("two", 0), key("two", 5)];
    for keys in [&[odd(0)][..], &[odd(28)], &[odd(65_537)], &twice] {
        let expected = Some("a".into());
        let put = node.replace_signing_keys(expected, ring("b", keys)).await;
        put.unwrap_err();
        let same = RingRead::Changed(ring("a", &[key("one", 0)]));
        assert_eq!(read(&*node, None).await, same, "nothing half way");
    }
    // Whatever somebody wrote past the program: so many are read and no more.
    let many: Vec<_> = (0..KEYS_MAX + 9)
        .map(|index| key(&format!("{index:03}"), 0))
        .collect();
    assert!(put(&*node, Some("a"), ring("b", &many)).await);
    let RingRead::Changed(found) = read(&*node, None).await else {
        panic!("the ring is gone");
    };
    assert_eq!(found.keys, many[..=KEYS_MAX]);
}

async fn store_6_a_reader_is_told_of_a_change_and_of_nothing_else(place: Place) {
    let node = place.node();
    assert_eq!(read(&*node, Some("a")).await, RingRead::Absent);
    assert!(put(&*node, None, ring("a", &[key("one", 0)])).await);
    assert_eq!(read(&*node, Some("a")).await, RingRead::Same);
    assert!(matches!(read(&*node, Some("")).await, RingRead::Changed(_)));
    assert!(put(&*node, Some("a"), ring("b", &[])).await);
    // A ring without keys is not one that was never there.
    assert_eq!(read(&*node, Some("b")).await, RingRead::Same);
    assert_eq!(
        read(&*node, Some("a")).await,
        RingRead::Changed(ring("b", &[]))
    );
    place.execute("DELETE FROM signing_ring").await;
    assert_eq!(read(&*node, Some("b")).await, RingRead::Absent);
    assert_eq!(place.number("SELECT count(*) FROM signing_keys").await, 0);
}
