//! Mapped shards, and what happens when a page of one is lost.
//!
//! Another program may truncate a file that is mapped, and a disk may fail to deliver a page. The next read of the lost
//! part is then a `SIGBUS`, which does not say where it came from. All maps are therefore listed, so that a signal
//! handler can name the shard.

use bytes::Bytes;
use std::path::Path;

/// What happens at the first read of a page that a mapped shard has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostPages {
    /// The process names the shard and ends with status 1: no computation may continue with wrong tokens.
    End,
    /// The page reads as zeros, and [`crate::TokenCache::lost_shard`] names the shard from then on. Who chooses this must
    /// ask before a result is used: for servers, which answer one request with an error and the next one as usual.
    Zeros,
}

/// Installs the handler, in front of another one that was installed since the last call, or changes what it does. A call where there
/// is nothing to do costs a fraction of a microsecond. Elsewhere than on Unix it does nothing.
pub fn handle_lost_pages(mode: LostPages) {
    #[cfg(unix)]
    imp::install(mode);
    #[cfg(not(unix))]
    let _ = mode;
}

/// Whether a mapped shard of this process has ever lost a page: while it is `false`, [`crate::TokenCache::lost_shard`] need not
/// be asked.
pub fn lost_any_page() -> bool {
    #[cfg(unix)]
    return imp::lost_any_page();
    #[cfg(not(unix))]
    false
}

/// A map as bytes.
pub(super) fn into_bytes(map: memmap2::Mmap, path: &Path) -> Bytes {
    #[cfg(unix)]
    return Bytes::from_owner(imp::Listed::new(map, path));
    #[cfg(not(unix))]
    {
        let _ = path;
        Bytes::from_owner(map)
    }
}

/// Whether `bytes` are of a map that has lost a page.
pub(crate) fn has_lost_pages(bytes: &[u8]) -> bool {
    #[cfg(unix)]
    return imp::has_lost_pages(bytes);
    #[cfg(not(unix))]
    {
        let _ = bytes;
        false
    }
}

/// Takes pages that will not be read again soon out of this process's memory; they stay in the system's page cache. Does
/// nothing to bytes that are not of a mapped file.
pub(crate) fn release(bytes: &[u8]) {
    #[cfg(unix)]
    imp::release(bytes);
    #[cfg(not(unix))]
    let _ = bytes;
}

#[cfg(unix)]
mod imp {
    use crate::shard::map::LostPages;
    use std::ffi::c_void;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    use std::ptr;
    use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
    use std::sync::{Mutex, PoisonError};

    /// One entry of the list of maps. Entries are never freed, so that the handler can walk the list at any moment; one
    /// whose map was dropped (`end` is 0) is used again for the same file.
    struct Entry {
        start: AtomicUsize,
        end: AtomicUsize,
        has_lost_pages: AtomicBool,
        path: Box<[u8]>,
        next: Option<&'static Entry>,
    }

    static FIRST: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());
    /// Held while an entry is taken or added.
    static ADDING: Mutex<()> = Mutex::new(());
    static LOST_ANY: AtomicBool = AtomicBool::new(false);
    static READS_ZEROS: AtomicBool = AtomicBool::new(false);
    static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);
    /// What was installed before, usually Rust's own handler.
    static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

    fn entries() -> impl Iterator<Item = &'static Entry> {
        // SAFETY: the pointer is null or of an entry that was leaked, whole, before it was stored.
        let first = unsafe { FIRST.load(Ordering::Acquire).as_ref() };
        std::iter::successors(first, |entry| entry.next)
    }

    fn entry_of(address: usize) -> Option<&'static Entry> {
        entries()
            .find(|entry| (entry.start.load(Ordering::Acquire)..entry.end.load(Ordering::Acquire)).contains(&address))
    }

    /// A map with its entry in the list, which is removed before the map is.
    pub(super) struct Listed {
        entry: &'static Entry,
        map: memmap2::Mmap,
    }

    impl Listed {
        pub(super) fn new(map: memmap2::Mmap, path: &Path) -> Listed {
            let _adding = ADDING.lock().unwrap_or_else(PoisonError::into_inner);
            let path = path.as_os_str().as_bytes();
            let is_free = |entry: &&Entry| entry.end.load(Ordering::Acquire) == 0 && *entry.path == *path;
            let entry = entries().find(is_free).unwrap_or_else(|| {
                // SAFETY: as in `entries`.
                let next = unsafe { FIRST.load(Ordering::Acquire).as_ref() };
                let entry = Box::leak(Box::new(Entry {
                    start: AtomicUsize::new(0),
                    end: AtomicUsize::new(0),
                    has_lost_pages: AtomicBool::new(false),
                    path: path.into(),
                    next,
                }));
                FIRST.store(entry, Ordering::Release);
                entry
            });
            entry.has_lost_pages.store(false, Ordering::Release);
            entry.start.store(map.as_ptr() as usize, Ordering::Release);
            entry.end.store(map.as_ptr() as usize + map.len(), Ordering::Release);
            Listed { entry, map }
        }
    }

    impl AsRef<[u8]> for Listed {
        fn as_ref(&self) -> &[u8] {
            &self.map
        }
    }

    impl Drop for Listed {
        fn drop(&mut self) {
            self.entry.end.store(0, Ordering::Release);
        }
    }

    pub(super) fn lost_any_page() -> bool {
        LOST_ANY.load(Ordering::Acquire)
    }

    pub(super) fn has_lost_pages(bytes: &[u8]) -> bool {
        entry_of(bytes.as_ptr() as usize).is_some_and(|entry| entry.has_lost_pages.load(Ordering::Acquire))
    }

    pub(super) fn release(bytes: &[u8]) {
        let page = PAGE_BYTES.load(Ordering::Relaxed);
        let start = (bytes.as_ptr() as usize).next_multiple_of(page);
        let end = (bytes.as_ptr() as usize + bytes.len()) / page * page;
        // Private memory would be lost, a file's pages are read again.
        if start < end && entry_of(start).is_some() {
            // SAFETY: the range is of a live map of a file (`bytes` borrows from it), and whole pages.
            unsafe { libc::madvise(start as *mut c_void, end - start, libc::MADV_DONTNEED) };
        }
    }

    pub(super) fn install(mode: LostPages) {
        static INSTALLING: Mutex<()> = Mutex::new(());
        READS_ZEROS.store(mode == LostPages::Zeros, Ordering::Release);
        let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) = on_lost_page;
        if handler_now().sa_sigaction == handler as usize {
            return;
        }
        let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        let before = handler_now();
        if before.sa_sigaction == handler as usize {
            return;
        }
        // SAFETY: a query without side effects.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        PAGE_BYTES.store(usize::try_from(page).unwrap_or(4096).max(1), Ordering::Release);
        PREVIOUS.store(Box::leak(Box::new(before)), Ordering::Release);
        // SAFETY: all-zero is a valid `sigaction`; the handler has the signature that SA_SIGINFO asks for and calls nothing but
        // what a signal handler may call.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &action, ptr::null_mut());
        }
    }

    /// What happens at `SIGBUS` now.
    fn handler_now() -> libc::sigaction {
        // SAFETY: all-zero is a valid `sigaction`, which the call fills; without a new one it changes nothing.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGBUS, ptr::null(), &mut now);
            now
        }
    }

    extern "C" fn on_lost_page(signal: i32, info: *mut libc::siginfo_t, _: *mut c_void) {
        // SAFETY: the kernel passes a valid struct to a handler that was installed with SA_SIGINFO.
        let address = unsafe { (*info).si_addr() } as usize;
        let Some(entry) = entry_of(address) else {
            // None of ours. The read is tried again under the handler before this one.
            let previous = PREVIOUS.load(Ordering::Acquire);
            if !previous.is_null() {
                // SAFETY: the struct was filled by `sigaction` and is never freed.
                unsafe { libc::sigaction(signal, previous, ptr::null_mut()) };
            }
            return;
        };
        entry.has_lost_pages.store(true, Ordering::Release);
        LOST_ANY.store(true, Ordering::Release);
        if READS_ZEROS.load(Ordering::Acquire) && put_zeros(address) {
            return;
        }
        let offset = address - entry.start.load(Ordering::Acquire);
        let mut digits = [0u8; 20];
        for part in [
            b"tokengrid: shard ".as_slice(),
            &entry.path,
            b": byte ",
            decimal(offset, &mut digits),
            b" cannot be read: the file was truncated while it was in use, or its disk fails; restore it from a copy\n",
        ] {
            // SAFETY: pointer and length are of a live slice. Nothing can be done where it cannot be written.
            let _ = unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
        }
        // SAFETY: ends the process, and may be called in a handler.
        unsafe { libc::_exit(1) }
    }

    /// Puts a page of zeros in the place of the lost one; whether that worked.
    fn put_zeros(address: usize) -> bool {
        let page = PAGE_BYTES.load(Ordering::Acquire);
        let start = (address / page * page) as *mut c_void;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: replaces one page of a map of ours, which is only read, and which its owner unmaps as a whole.
        let mapped = unsafe { libc::mmap(start, page, libc::PROT_READ, flags, -1, 0) };
        mapped != libc::MAP_FAILED
    }

    /// `number` in decimal digits, without memory from the heap.
    fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &[u8] {
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return &digits[first..];
            }
        }
    }
}
