//! What a test program takes on the heap. Counts are of the whole process, so such tests are programs of their own, with
//! [`Counting`] as their allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, which counts.
#[derive(Debug)]
pub struct Counting;

// SAFETY: everything is left to the system's allocator, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: as the caller vouches.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller vouches.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Allocations so far.
pub fn allocations() -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// Bytes that are held now.
pub fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

/// The most bytes that are held at a time while `work` runs.
pub fn peak(work: impl FnOnce()) -> usize {
    PEAK.store(held(), Ordering::Relaxed);
    work();
    PEAK.load(Ordering::Relaxed)
}

/// Names of what is measured, with bytes.
pub type Measured = Vec<(&'static str, usize)>;

/// Fails where what `measure` finds for two numbers of rows grows by more bytes per row than `bounds` allows, by the same names.
///
/// # Panics
/// Then.
pub fn check_growth(sizes: [usize; 2], measure: impl Fn(usize) -> Measured, bounds: &[(&str, usize)]) {
    let [small, large] = sizes.map(measure);
    assert_eq!(large.len(), bounds.len(), "a bound for each");
    let mut too_much = Vec::new();
    for (((name, small), (_, large)), (of, bound)) in small.iter().zip(&large).zip(bounds) {
        assert_eq!(name, of);
        let slope = large.saturating_sub(*small) as f64 / (sizes[1] - sizes[0]) as f64;
        println!("{name}: {slope:.1} bytes per row, {large} bytes at {} rows", sizes[1]);
        if slope > *bound as f64 {
            too_much.push(format!("{name}: {slope:.1} bytes per row, at most {bound}"));
        }
    }
    assert!(too_much.is_empty(), "{too_much:#?}");
}
