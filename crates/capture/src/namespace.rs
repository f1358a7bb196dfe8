//! Network namespaces for workloads: made, entered, removed, and cleaned up after the dead.
//!
//! A namespace is kept by a mount under `/run/netns`, as `ip netns` does, so that its tools show
//! it. Its name, and the name of its link on the host, carry the process id of the owner; whatever
//! carries the id of a process that is gone is removed by the next one. All changes to what the
//! host shares (bridges, rules, that directory) are made under one lock, across processes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use tracing::{debug, warn};

use crate::available::{self, Backend};
use crate::bridge::{Bridge, blocking, check_name};
use crate::error::CaptureError;
use crate::{forwarding, netlink};

const DIRECTORY: &str = "/run/netns";
const LONGEST_NAME: usize = 64;
/// The workload's link, inside.
const LINK: &str = "eth0";

/// A network namespace attached to a bridge. Removed when dropped; processes still in it keep
/// the kernel's part of it alive, without a way out.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    entry: Entry,
    host_link: String,
    bridge: Bridge,
    backend: Backend,
    addresses: Vec<IpNet>,
    removed: bool,
}

/// The way into a namespace, to be cloned and sent to other threads. Keeps the namespace alive,
/// but neither its name nor its link.
#[derive(Debug, Clone)]
pub struct Entry(Arc<OwnedFd>);

impl Entry {
    /// Moves the calling thread in, for good. One system call, allowed between fork and exec.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET)?)
    }

    /// Runs `f` on a thread inside and gives its result. Sockets opened there stay inside.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("namespace".to_owned())
                .spawn_scoped(scope, || {
                    self.enter()?;
                    Ok(f())
                })?;
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Has the program that `command` starts run inside.
    pub fn confine(&self, command: &mut Command) {
        let entry = self.clone();
        // SAFETY: between fork and exec the closure makes one system call, setns(2); it neither
        // allocates nor takes a lock.
        #[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
        unsafe {
            command.pre_exec(move || entry.enter());
        }
    }
}

impl AsFd for Entry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A name for the next namespace of this process: `tulle-<pid>-<n>`.
pub fn next_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("tulle-{}-{n}", std::process::id())
}

impl Namespace {
    /// Makes a namespace with these addresses, attached to `bridge`, which is made where missing.
    ///
    /// With a `name` from [`next_name`] it is found and removed after a crash of this process. The
    /// prefixes of the addresses say what is on the link; all else goes through the bridge.
    pub async fn create(
        name: &str,
        bridge: &Bridge,
        addresses: &[IpNet],
    ) -> Result<Self, CaptureError> {
        let (name, bridge, addresses) = (name.to_owned(), bridge.clone(), addresses.to_vec());
        blocking(move || Self::create_blocking(&name, &bridge, &addresses)).await
    }

    /// As [`Namespace::create`], on the calling thread.
    pub fn create_blocking(
        name: &str,
        bridge: &Bridge,
        addresses: &[IpNet],
    ) -> Result<Self, CaptureError> {
        check_name(name, LONGEST_NAME)?;
        if let Some(stranger) = addresses.iter().find(|a| !bridge.holds(a)) {
            return Err(CaptureError::Address(
                stranger.to_string(),
                bridge.name.clone(),
            ));
        }
        let backend = available::backend()?;
        let lock = Lock::take()?;
        clean(&lock, backend)?;
        bridge.set_up(&lock, backend, None)?;
        let entry = make(&lock, name).inspect_err(|_| {
            // The next start would find it, too.
            let _ = bridge.tear_down_if_unused(&lock, backend);
        })?;
        let namespace = Self {
            name: name.to_owned(),
            entry,
            host_link: next_link(),
            bridge: bridge.clone(),
            backend,
            addresses: addresses.to_vec(),
            removed: false,
        };
        let wired = namespace.wire();
        drop(lock); // the drop of a half-made namespace takes it
        wired.map(|()| namespace)
    }

    fn wire(&self) -> Result<(), CaptureError> {
        let inner = format!("{}p", self.host_link);
        netlink::with(None, async |netlink| {
            // Left by an earlier process that had our id.
            if let Some(stale) = netlink.link(&self.host_link).await? {
                netlink.delete(&stale).await?;
            }
            netlink.add_veth(&self.host_link, &inner).await?;
            netlink.hand_over(&inner, self.entry.as_fd()).await?;
            netlink.attach(&self.host_link, &self.bridge.name).await
        })?;
        netlink::with(Some(self.entry.as_fd()), async |netlink| {
            netlink.up("lo").await?;
            netlink.rename(&inner, LINK).await?;
            netlink.up(LINK).await?;
            for address in &self.addresses {
                if address.addr().is_ipv4() || forwarding::kernel_has_ipv6() {
                    netlink.add_address(LINK, *address).await?;
                }
            }
            for gateway in self.bridge.gateways() {
                let gateway = gateway.addr();
                let same_family = |a: &&IpNet| a.addr().is_ipv4() == gateway.is_ipv4();
                if self.addresses.iter().find(same_family).is_some()
                    && (gateway.is_ipv4() || forwarding::kernel_has_ipv6())
                {
                    netlink.default_route(gateway).await?;
                }
            }
            Ok(())
        })
    }

    /// The name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        path(&self.name)
    }

    /// The workload's addresses.
    pub fn addresses(&self) -> &[IpNet] {
        &self.addresses
    }

    /// The bridge it is attached to.
    pub fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    /// The way in, for other threads and child processes.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// See [`Entry::enter`].
    pub fn enter(&self) -> io::Result<()> {
        self.entry.enter()
    }

    /// See [`Entry::run`].
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.entry.run(f)
    }

    /// See [`Entry::confine`].
    pub fn confine(&self, command: &mut Command) {
        self.entry.confine(command);
    }

    pub(crate) fn backend(&self) -> Backend {
        self.backend
    }

    /// Removes the namespace, its link, and the bridge when nothing else is attached to it.
    pub async fn remove(mut self) -> Result<(), CaptureError> {
        blocking(move || self.tear_down()).await
    }

    fn tear_down(&mut self) -> Result<(), CaptureError> {
        if std::mem::replace(&mut self.removed, true) {
            return Ok(());
        }
        let lock = Lock::take()?;
        let unlinked = remove_links(|name| name == self.host_link);
        let unmade = unmake(&self.name);
        let bridge = self.bridge.tear_down_if_unused(&lock, self.backend);
        unlinked.and(unmade).and(bridge)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = self.tear_down() {
            warn!(namespace = self.name, %error, "cannot remove a network namespace; the next start will");
        }
    }
}

/// Removes namespaces, links and bridges of Tulle whose owners are gone; gives their number.
/// [`Namespace::create`] does this too.
pub async fn clean_stale() -> Result<usize, CaptureError> {
    blocking(|| {
        let backend = available::backend()?;
        clean(&Lock::take()?, backend)
    })
    .await
}

/// Held while anything shared by the host's processes is changed.
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Lock {
    pub(crate) fn take() -> Result<Self, CaptureError> {
        let failed = |e| CaptureError::namespace(DIRECTORY, "lock the directory")(e);
        std::fs::create_dir_all(DIRECTORY).map_err(failed)?;
        let file = File::open(DIRECTORY).map_err(failed)?;
        // iproute2 locks the same directory while it makes a namespace.
        let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| failed(e.into()))?;
        Ok(Self { _file: file })
    }
}

/// Makes the directory a shared mount of its own, as `ip netns add` does. If that came after a
/// mount of ours, it would cover it, and what is covered cannot be removed.
fn share_directory(_: &Lock) {
    let share = || {
        mount(
            None::<&str>,
            DIRECTORY,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    let shared = share().or_else(|_| {
        // EINVAL: it is no mount yet.
        mount(
            Some(DIRECTORY),
            DIRECTORY,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )?;
        share()
    });
    if let Err(error) = shared {
        debug!(%error, "{DIRECTORY} is no shared mount; `ip netns add` would cover what is in it");
    }
}

/// Makes an empty namespace and mounts it.
pub(crate) fn make(lock: &Lock, name: &str) -> Result<Entry, CaptureError> {
    share_directory(lock);
    let path = path(name);
    if path.exists() {
        // Our own process id with a name that we did not make: an earlier process had that id.
        let stale = owner_of_namespace(name)
            .is_some_and(|pid| !alive(pid) || pid == std::process::id() && !made().contains(name));
        if !stale {
            return Err(CaptureError::Exists(name.to_owned()));
        }
        unmake(name)?;
    }
    File::create_new(&path).map_err(CaptureError::namespace(name, "create its file"))?;
    let work = || -> io::Result<Entry> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let here = File::open("/proc/thread-self/ns/net")?;
        mount(
            Some("/proc/thread-self/ns/net"),
            &path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )?;
        Ok(Entry(Arc::new(here.into())))
    };
    let mounted = std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    });
    let entry = mounted.map_err(|e| {
        let _ = unmake(name);
        CaptureError::namespace(name, "create and mount it")(e)
    })?;
    made().insert(name.to_owned());
    Ok(entry)
}

/// Names of the namespaces that this process has made and not removed.
fn made() -> MutexGuard<'static, BTreeSet<String>> {
    static MADE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unmounts a namespace and removes its file; one that is gone is fine.
pub(crate) fn unmake(name: &str) -> Result<(), CaptureError> {
    made().remove(name);
    let path = path(name);
    // EINVAL: not mounted, as after a reboot with the directory on disk.
    match umount2(&path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
        Err(e) => return Err(CaptureError::namespace(name, "unmount it")(e.into())),
    }
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(CaptureError::namespace(name, "remove its file")(e))
        }
        _ => Ok(()),
    }
}

fn clean(lock: &Lock, backend: Backend) -> Result<usize, CaptureError> {
    let mut removed = 0;
    let entries = std::fs::read_dir(DIRECTORY)
        .map_err(CaptureError::namespace(DIRECTORY, "list the directory"))?;
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if owner_of_namespace(&name).is_some_and(|pid| !alive(pid)) {
            debug!(namespace = name, "removing what a killed process left");
            match unmake(&name) {
                Ok(()) => removed += 1,
                // A file without a use; nobody has to wait for its end.
                Err(error) => warn!(namespace = name, %error, "left as it is"),
            }
        }
    }
    removed += remove_links(|name| owner_of_link(name).is_some_and(|pid| !alive(pid)))?;
    removed += Bridge::clean_stale(lock, backend)?;
    Ok(removed)
}

fn remove_links(doomed: impl Fn(&str) -> bool + Send + Sync) -> Result<usize, CaptureError> {
    netlink::with(None, async |netlink| {
        let mut removed = 0;
        for link in netlink.links().await?.iter().filter(|l| doomed(&l.name)) {
            netlink.delete(link).await?;
            removed += 1;
        }
        Ok(removed)
    })
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// A name for a link, short enough for the kernel with the `p` of its peer: `tv<pid>-<n>`, in hex.
fn next_link() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    // Process ids have at most 6 hexadecimal digits; 5 are left for the number.
    format!("tv{:x}-{:x}", std::process::id(), n & 0xf_ffff)
}

fn owner_of_namespace(name: &str) -> Option<u32> {
    let (pid, n) = name.strip_prefix("tulle-")?.split_once('-')?;
    n.parse::<u32>().ok()?;
    pid.parse().ok()
}

fn owner_of_link(name: &str) -> Option<u32> {
    let (pid, n) = name.strip_prefix("tv")?.split_once('-')?;
    u32::from_str_radix(n.strip_suffix('p').unwrap_or(n), 16).ok()?;
    u32::from_str_radix(pid, 16).ok()
}

pub(crate) fn alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_their_owner_and_foreign_ones_have_none() {
        let me = Some(std::process::id());
        assert_eq!(owner_of_namespace(&next_name()), me);
        assert_eq!(owner_of_link(&next_link()), me);
        assert_eq!(owner_of_link(&format!("{}p", next_link())), me);
        for foreign in [
            "blue",
            "tulle",
            "tulle-",
            "tulle-a-1",
            "tulle-12",
            "tulle-1-x",
        ] {
            assert_eq!(owner_of_namespace(foreign), None, "{foreign}");
        }
        for foreign in ["veth0", "tv0", "tv-1", "eth0"] {
            assert_eq!(owner_of_link(foreign), None, "{foreign}");
        }
        assert!(alive(std::process::id()) && !alive(u32::MAX));
    }

    #[test]
    fn names_of_links_fit_the_kernel() {
        assert!(format!("tv{:x}-{:x}p", 4_194_304, 0xf_ffff).len() <= 15);
        assert!(next_link().len() < 15);
    }
}
