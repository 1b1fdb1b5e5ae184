//! The boundaries of the stages, that they do not flap, and what is read of the kernel's files.

use std::{
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tempfile::TempDir;

use super::*;
use MemoryStage::{Calm, Closed, Cutting, Lean, Refusing};

fn of_1000(used: u64) -> Reading {
    Reading {
        used,
        limit: Some(1000),
    }
}

#[test]
fn fault_1_each_stage_begins_at_its_boundary() {
    for (used, want) in [
        (0, Calm),
        (919, Calm),
        (920, Lean),
        (949, Lean),
        (950, Refusing),
        (959, Refusing),
        (960, Closed),
        (974, Closed),
        (975, Cutting),
        (1000, Cutting),
        (5000, Cutting),
    ] {
        let pressure = MemoryPressure::default();
        let changed = pressure.judge(of_1000(used));
        assert_eq!(pressure.stage(), want, "{used}");
        assert_eq!(changed, (want != Calm).then_some(want), "{used}");
        let refused = pressure.check() == Err(Rejection::Overloaded);
        assert_eq!(refused, want >= Refusing, "{used}");
        assert_eq!(pressure.seen(), (used, 1000));
    }
}

#[test]
fn fault_1_a_stage_ends_well_below_where_it_began_and_one_at_a_time() {
    let pressure = MemoryPressure::default();
    for (used, want) in [
        (990, Cutting),
        // Around the boundary nothing flaps.
        (974, Cutting),
        (956, Cutting),
        (975, Cutting),
        (955, Cutting),
        (954, Closed),
        // Even where all is free again, one after the other.
        (100, Refusing),
        (100, Lean),
        (100, Calm),
        (951, Refusing),
        (930, Refusing),
        (949, Refusing),
        (929, Lean),
        (919, Lean),
        (900, Lean),
        (899, Calm),
        (919, Calm),
    ] {
        pressure.judge(of_1000(used));
        assert_eq!(pressure.stage(), want, "at {used}");
    }
}

#[test]
fn fault_1_without_a_limit_nothing_is_shed_and_one_that_goes_takes_its_stage_along() {
    let pressure = MemoryPressure::default();
    let endless = Reading {
        used: u64::MAX,
        limit: None,
    };
    assert_eq!(pressure.judge(endless), None);
    assert_eq!(pressure.judge(of_1000(999)), Some(Cutting));
    assert_eq!(pressure.judge(endless), Some(Calm));
    let none = Reading {
        used: 5,
        limit: Some(0),
    };
    assert_eq!(none.thousandths(), 0);
}

/// A machine's files: `/proc/self` and what is mounted.
struct Machine(TempDir);

impl Machine {
    fn new(cgroup: &str, mountinfo: &str) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        machine.write("proc/cgroup", cgroup);
        machine.write("proc/mountinfo", mountinfo);
        machine.write(
            "proc/status",
            "Name:\tx\nVmRSS:\t9000 kB\nRssAnon:\t   7 kB\n",
        );
        machine
    }

    fn write(&self, name: &str, text: &str) {
        let file = self.0.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn read(&self, configured: Option<u64>) -> (u64, Option<u64>) {
        let root: &Path = self.0.path();
        let reading = Meter::of(&root.join("proc"), root).read(configured);
        (reading.used, reading.limit)
    }
}

const SECOND: &str = "30 24 0:27 / /cg rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

#[test]
fn fault_1_page_cache_is_not_memory_in_use() {
    let machine = Machine::new("0::/a/b\n", SECOND);
    machine.write("cg/a/b/memory.max", "1000000\n");
    let stat = "anon 1000\nfile 900000\nkernel 500\nkernel_stack 1\nslab_reclaimable 200\nsock 30\nshmem 4\n";
    machine.write("cg/a/b/memory.stat", stat);
    assert_eq!(machine.read(None), (1334, Some(1_000_000)));
    // A kernel that does not sum up its own.
    let old = "anon 1000\nkernel_stack 1\npagetables 2\nslab_reclaimable 200\nslab_unreclaimable 40\nsock 30\nshmem 4\n";
    machine.write("cg/a/b/memory.stat", old);
    assert_eq!(machine.read(None), (1077, Some(1_000_000)));
}

#[test]
fn fault_1_the_nearest_limit_of_all_levels_counts() {
    let machine = Machine::new("0::/a/b\n", SECOND);
    machine.write("cg/a/b/memory.max", "max\n");
    machine.write("cg/a/b/memory.stat", "anon 1000\n");
    assert_eq!(machine.read(None), (7168, None));
    machine.write("cg/a/memory.max", "4000\n");
    machine.write("cg/a/memory.stat", "anon 3000\n");
    assert_eq!(machine.read(None), (3000, Some(4000)));
    machine.write("cg/a/b/memory.max", "1100\n");
    assert_eq!(machine.read(None), (1000, Some(1100)));
    // The configured one is about the process alone.
    assert_eq!(machine.read(Some(100_000)), (1000, Some(1100)));
    assert_eq!(machine.read(Some(7200)), (7168, Some(7200)));
}

#[test]
fn fault_1_groups_of_version_1_and_of_containers_are_found() {
    let mounts = "1 2 0:3 / / rw - ext4 /dev/x rw\n\
                  32 31 0:29 / /cpu rw - cgroup cgroup rw,cpu\n\
                  35 31 0:32 /docker/abc /mem rw - cgroup cgroup rw,memory\n\
                  41 31 0:38 / /unified rw - cgroup2 cgroup2 rw\n";
    let member = "5:cpu:/docker/abc\n4:memory:/docker/abc\n0::/\n";
    let machine = Machine::new(member, mounts);
    machine.write("mem/memory.limit_in_bytes", "536870912\n");
    machine.write("mem/memory.kmem.usage_in_bytes", "11\n");
    let stat = "cache 9000000\nrss 1\ntotal_cache 9000000\ntotal_rss 500\ntotal_shmem 20\n";
    machine.write("mem/memory.stat", stat);
    assert_eq!(machine.read(None), (531, Some(536_870_912)));
    machine.write("mem/memory.limit_in_bytes", "9223372036854771712\n");
    assert_eq!(machine.read(None), (7168, None));
}

#[test]
fn fault_1_this_machine_can_be_read() {
    let reading = Meter::find().read(Some(1 << 40));
    assert!(reading.used > 100_000, "{reading:?}");
    assert!(reading.limit.is_some());
}

#[tokio::test(start_paused = true)]
async fn fault_1_the_watch_gives_up_what_it_can_and_tells_of_each_change() {
    let machine = Machine::new("", "");
    let root = machine.0.path();
    let meter = Meter::of(&root.join("proc"), root);
    let pressure = Arc::new(MemoryPressure::default());
    let (given, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(vec![])));
    let limit = Arc::new(AtomicU64::new(7168 * 2));
    let hooks = Hooks {
        is_alone: || false,
        limit: {
            let limit = Arc::clone(&limit);
            move || Some(limit.load(Ordering::SeqCst))
        },
        give_up: {
            let given = Arc::clone(&given);
            move || {
                given.fetch_add(1, Ordering::SeqCst);
            }
        },
        report: {
            let told = Arc::clone(&told);
            move |condition: Result<(), String>| told.lock().unwrap().push(condition.is_ok())
        },
    };
    let task = tokio::spawn(watch(Arc::clone(&pressure), meter, hooks));
    let until = async |stage| {
        while pressure.stage() != stage {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until(Calm).await;
    assert_eq!(given.load(Ordering::SeqCst), 0);
    limit.store(7168, Ordering::SeqCst);
    until(Cutting).await;
    limit.store(7168 * 2, Ordering::SeqCst);
    until(Calm).await;
    assert_eq!(given.load(Ordering::SeqCst), 1);
    let told = told.lock().unwrap().clone();
    assert_eq!(told, [false, false, false, false, true]);
    task.abort();
}

#[test]
fn fault_1_what_is_in_use_with_nobody_there_refuses_nobody() {
    let pressure = MemoryPressure::default();
    pressure.judge(of_1000(980));
    assert_eq!(pressure.stage(), Cutting);
    // All connections are gone, and the allocator keeps what they had.
    pressure.excuse(980);
    for (used, want) in [
        (980, Lean),
        (999, Lean),
        // Whoever comes then may not have as much again.
        (1001, Cutting),
        (999, Lean),
        (960, Lean),
        (899, Calm),
        // It was given back, and is not excused any more.
        (980, Cutting),
    ] {
        pressure.judge(of_1000(used));
        assert_eq!(pressure.stage(), want, "{used}");
    }
}

#[tokio::test(start_paused = true)]
async fn fault_1_whoever_waits_for_memory_to_be_scarce_is_told_at_once() {
    let pressure = Arc::new(MemoryPressure::default());
    let waiting = |pressure: &Arc<MemoryPressure>| {
        let pressure = Arc::clone(pressure);
        tokio::spawn(async move { pressure.until_scarce().await })
    };
    let (one, other) = (waiting(&pressure), waiting(&pressure));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    pressure.judge(of_1000(900));
    tokio::task::yield_now().await;
    assert!(!one.is_finished() && !other.is_finished());
    pressure.judge(of_1000(920));
    one.await.unwrap();
    other.await.unwrap();
    // It still is; and when it was in between, nobody waits for what is over.
    waiting(&pressure).await.unwrap();
    pressure.judge(of_1000(100));
    let late = waiting(&pressure);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!late.is_finished());
    // From nothing to the worst.
    pressure.judge(of_1000(1000));
    late.await.unwrap();
}
