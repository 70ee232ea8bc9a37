//! The C library's allocator, set so that a peer stays small.
//!
//! glibc keeps a heap ("arena") for every few threads, and raises by itself the size from which memory goes back to the
//! system at once. With that the same work five times takes ever more memory, and what a busy minute took stays. Its
//! settings are read from the environment before `main`, so the program sets them and starts itself again in place: the
//! same process, with the same number. Measured in a cgroup of 96 MB with the profile `edge`, 100,000 documents, two
//! builds of indexes, a catch-up, a query and an export: killed as glibc is, 70 MB at most so; mimalloc 2 (which purges
//! at once) is killed as well, and jemalloc 5.3 (with its background thread) takes all of it.
//!
//! Whoever sets one of the variables chooses for themselves. Elsewhere than on glibc nothing is set.

use std::ffi::OsStr;

/// Cores for each heap: those that allocate at the same time wait for each other.
const CORES_PER_ARENA: usize = 4;
/// Bytes from which memory is the system's own, and goes back to it when it is freed; and of free memory at the end of a
/// heap that are kept. It is glibc's default, which does not move once it is set.
const THRESHOLD_BYTES: &str = "131072";
/// What else sets the allocator.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// What is set, by its names in the environment.
fn settings(cores: usize) -> [(&'static str, String); 3] {
    [
        ("MALLOC_ARENA_MAX", (cores / CORES_PER_ARENA).max(1).to_string()),
        ("MALLOC_MMAP_THRESHOLD_", THRESHOLD_BYTES.to_owned()),
        ("MALLOC_TRIM_THRESHOLD_", THRESHOLD_BYTES.to_owned()),
    ]
}

/// Whether the environment says already how memory is to be allocated.
fn is_set(is_there: impl Fn(&OsStr) -> bool) -> bool {
    settings(1).iter().map(|(name, _)| *name).chain([TUNABLES]).any(|name| is_there(name.as_ref()))
}

/// Starts the program again with the allocator's settings, unless they are there. To be called before anything else in a
/// program that runs a peer. When the program cannot be started again it goes on as it is.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn settle_allocator() {
    use std::os::unix::process::CommandExt;
    use std::{env, process, thread};

    if is_set(|name| env::var_os(name).is_some()) {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut command = process::Command::new(program);
    let mut arguments = env::args_os();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // It returns only when it failed, and then nothing is lost but the settings.
    let _failed = command.args(arguments).envs(settings(cores)).exec();
}

/// Nothing to be set.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn settle_allocator() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sets_anything_chooses_for_themselves() {
        assert!(!is_set(|name| name == "PATH"));
        for name in ["MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"] {
            assert!(is_set(|set| set == name), "{name}");
        }
    }

    #[test]
    fn a_small_machine_has_one_heap() {
        assert_eq!([1, 2, 4, 7, 16].map(|cores| settings(cores)[0].1.clone()), ["1", "1", "1", "1", "4"]);
    }
}
