//! Work on libtorch's own threads.
//!
//! A step alternates between libtorch's matrix products and the kernels of this folder every few milliseconds. libtorch's
//! OpenMP threads wait actively for a while after each product; a second pool beside them would fight for the same cores.
//! So the kernels run on the same team, through the entry point that compilers use for `#pragma omp parallel`. Where the
//! OpenMP library is another one, our own threads take its place.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// `GOMP_parallel(function, data, num_threads, flags)` of GNU's OpenMP library.
type GompParallel = unsafe extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, u32, u32);

fn gomp_parallel() -> Option<GompParallel> {
    static FOUND: OnceLock<Option<GompParallel>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: a look-up by name among the libraries that are loaded; the name ends with a zero.
        let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"GOMP_parallel".as_ptr()) };
        // SAFETY: the symbol is part of GNU's OpenMP ABI, with this signature since 2013.
        (!symbol.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, GompParallel>(symbol) })
    })
}

/// Tasks that threads take one after the other.
struct Tasks<'a> {
    next: AtomicUsize,
    count: usize,
    work: &'a (dyn Fn(usize) + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Tasks<'_> {
    /// Works until no task is left. A panic is kept for the caller: it must not cross the OpenMP library.
    fn drain(&self) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.work_on())) {
            self.next.store(self.count, Ordering::Relaxed);
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
    }

    fn work_on(&self) {
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= self.count {
                return;
            }
            (self.work)(task);
        }
    }
}

/// Entered by every thread of the team.
extern "C" fn enter(tasks: *mut c_void) {
    // SAFETY: `for_each` passes a `Tasks` that outlives the team's work, and threads only share it.
    unsafe { &*tasks.cast::<Tasks>() }.drain();
}

/// Calls `work(0) .. work(count - 1)`, each once, in any order and on any thread; returns when all are done. What a task
/// computes must not depend on which thread runs it.
///
/// # Panics
/// Passes on a panic of `work`, when every thread has ended its task.
pub fn for_each(count: usize, work: &(dyn Fn(usize) + Sync)) {
    let tasks = Tasks { next: AtomicUsize::new(0), count, work, panic: Mutex::default() };
    let threads = (tch::get_num_threads().max(1) as usize).min(count);
    match gomp_parallel() {
        _ if threads <= 1 => tasks.drain(),
        // SAFETY: `enter` expects a pointer to `Tasks`, and the call returns after every thread has left it.
        Some(parallel) => unsafe { parallel(enter, (&raw const tasks).cast_mut().cast(), threads as u32, 0) },
        None => std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| tasks.drain());
            }
            tasks.drain();
        }),
    }
    if let Some(panic) = tasks.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
        resume_unwind(panic);
    }
}

/// A mutable slice from which tasks take disjoint pieces.
pub struct Pieces<'a, T> {
    start: *mut T,
    len: usize,
    _slice: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: pieces go to one task each (the promise of `piece`), like the halves of `split_at_mut`.
unsafe impl<T: Send> Sync for Pieces<'_, T> {}

impl<'a, T> Pieces<'a, T> {
    /// All of `slice`, to be cut.
    pub fn of(slice: &'a mut [T]) -> Pieces<'a, T> {
        Pieces { start: slice.as_mut_ptr(), len: slice.len(), _slice: std::marker::PhantomData }
    }

    /// Where element `from` lies, for tasks whose parts are not ranges.
    ///
    /// # Panics
    /// When it is not within the slice.
    pub fn pointer(&self, from: usize) -> *mut T {
        assert!(from < self.len);
        // SAFETY: within the slice.
        unsafe { self.start.add(from) }
    }

    /// Elements `from .. from + len`.
    ///
    /// # Safety
    /// No other piece in use overlaps this one.
    ///
    /// # Panics
    /// When the range is not within the slice.
    #[allow(clippy::mut_from_ref)] // the caller promises that pieces are disjoint
    pub unsafe fn piece(&self, from: usize, len: usize) -> &mut [T] {
        assert!(from <= self.len && len <= self.len - from);
        // SAFETY: within the slice, and disjoint from every other piece by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }
}

/// Work on a matrix of `rows` rows in pieces of `rows_per_task`: `work(first row, number of rows)`.
pub fn for_rows(rows: usize, rows_per_task: usize, work: &(dyn Fn(usize, usize) + Sync)) {
    for_each(rows.div_ceil(rows_per_task), &|task| {
        let first = task * rows_per_task;
        work(first, rows_per_task.min(rows - first));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_for_any_number_of_threads() {
        for count in [0, 1, 2, 1000] {
            let mut marks = vec![0u32; count];
            let pieces = Pieces::of(&mut marks);
            // SAFETY: one element per task.
            for_each(count, &|task| unsafe { pieces.piece(task, 1)[0] += 1 });
            assert!(marks.iter().all(|&mark| mark == 1));
        }
    }

    #[test]
    fn a_panic_of_a_task_reaches_the_caller() {
        let broken = || for_each(100, &|task| assert!(task != 7, "the task is broken"));
        let panic = catch_unwind(broken).expect_err("the panic is passed on");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"the task is broken"));
    }

    #[test]
    fn rows_are_covered_without_overlap() {
        let mut rows = vec![0u32; 37];
        let pieces = Pieces::of(&mut rows);
        for_rows(37, 8, &|first, count| {
            // SAFETY: `for_rows` hands out disjoint ranges.
            unsafe { pieces.piece(first, count) }.iter_mut().for_each(|row| *row += 1);
        });
        assert_eq!(rows, vec![1; 37]);
    }
}
