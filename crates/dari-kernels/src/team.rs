//! A team of threads for the hot loops.
//!
//! Between two products of one picture lie microseconds: a thread that sleeps there is woken later than
//! it is needed. So the team's threads look for work for a while before they sleep, the caller does its
//! share itself, and a thread that is not there in time is not waited for. What a task computes does not
//! depend on who runs it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How long a thread looks for work before it sleeps.
const PATIENCE: Duration = Duration::from_micros(150);
/// Set in [`GATE`] while a job may be entered; the lower bits count the threads inside.
const OPEN: u32 = 1 << 31;

static GATE: AtomicU32 = AtomicU32::new(0);
static JOB: AtomicPtr<Job<'static>> = AtomicPtr::new(std::ptr::null_mut());
/// Threads that may enter the job beside the caller.
static WANTED: AtomicUsize = AtomicUsize::new(0);
/// Counts jobs, so that nobody enters one twice.
static NUMBER: AtomicU32 = AtomicU32::new(0);
static SLEEPING: AtomicUsize = AtomicUsize::new(0);
/// How many threads there are beside the callers; held while a job runs.
static CREW: Mutex<usize> = Mutex::new(0);
static BED: Mutex<()> = Mutex::new(());
static ALARM: Condvar = Condvar::new();

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

struct Job<'a> {
    task: &'a (dyn Fn(usize) + Sync),
    count: usize,
    next: AtomicUsize,
    failed: AtomicBool,
}

impl Job<'_> {
    fn work(&self) {
        let inside = INSIDE.replace(true);
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let index = self.next.fetch_add(1, Ordering::Relaxed);
                if index >= self.count {
                    return;
                }
                (self.task)(index);
            }
        }));
        INSIDE.set(inside);
        if result.is_err() {
            self.next.store(self.count, Ordering::Relaxed);
            self.failed.store(true, Ordering::Relaxed);
        }
    }
}

/// How many threads [`run`] uses: those of the pool of rayon that the caller belongs to.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Runs `task(0)` to `task(count - 1)`, on all threads, and returns when all are done. A task that runs
/// tasks itself runs them alone, as does a caller who comes while another's are running.
pub fn run(count: usize, task: impl Fn(usize) + Sync) {
    let helpers = threads().saturating_sub(1).min(count.saturating_sub(1));
    if helpers == 0 || INSIDE.get() {
        (0..count).for_each(task);
        return;
    }
    let mut crew = match CREW.try_lock() {
        Ok(crew) => crew,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => {
            (0..count).for_each(task);
            return;
        }
    };
    while *crew < helpers {
        let number = *crew;
        // Without another thread there is one less.
        if std::thread::Builder::new().name("dari-team".into()).spawn(move || member(number)).is_err() {
            break;
        }
        *crew += 1;
    }
    let next = AtomicUsize::new(0);
    let job = Job { task: &task, count, next, failed: AtomicBool::new(false) };
    WANTED.store(helpers, Ordering::Relaxed);
    NUMBER.fetch_add(1, Ordering::Relaxed);
    JOB.store((&raw const job).cast::<Job<'static>>().cast_mut(), Ordering::Relaxed);
    GATE.store(OPEN, Ordering::SeqCst);
    if SLEEPING.load(Ordering::SeqCst) > 0 {
        drop(BED.lock().unwrap_or_else(PoisonError::into_inner));
        ALARM.notify_all();
    }
    job.work();
    // Nobody enters any more; the job lives until everybody inside has left.
    GATE.fetch_and(!OPEN, Ordering::SeqCst);
    let mut looks = 0u32;
    while GATE.load(Ordering::Acquire) != 0 {
        looks += 1;
        if looks < 1 << 12 { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
    drop(crew);
    if job.failed.load(Ordering::Relaxed) {
        resume_unwind(Box::new("a task of the team panicked"));
    }
}

/// One thread of the team.
fn member(number: usize) {
    let mut last = 0;
    let mut idle = Instant::now();
    let mut looks = 0u32;
    loop {
        let gate = GATE.load(Ordering::Acquire);
        let job = NUMBER.load(Ordering::Relaxed);
        let open = gate & OPEN != 0 && job != last && number < WANTED.load(Ordering::Relaxed);
        if open && GATE.compare_exchange(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            // The job that is open now may be a later one than was read above.
            last = NUMBER.load(Ordering::Relaxed);
            // SAFETY: the gate was open when this thread was counted in, so the job is there, and its
            // caller waits until the thread is counted out.
            unsafe { &*JOB.load(Ordering::Relaxed) }.work();
            GATE.fetch_sub(1, Ordering::Release);
            idle = Instant::now();
            looks = 0;
            continue;
        }
        std::hint::spin_loop();
        looks += 1;
        if looks.is_multiple_of(64) && idle.elapsed() > PATIENCE {
            sleep(last);
            idle = Instant::now();
        }
    }
}

/// Sleeps until a job is there that this thread has not seen.
fn sleep(last: u32) {
    let mut bed = BED.lock().unwrap_or_else(PoisonError::into_inner);
    SLEEPING.fetch_add(1, Ordering::SeqCst);
    while GATE.load(Ordering::SeqCst) & OPEN == 0 || NUMBER.load(Ordering::Relaxed) == last {
        bed = ALARM.wait(bed).unwrap_or_else(PoisonError::into_inner);
    }
    SLEEPING.fetch_sub(1, Ordering::SeqCst);
}

/// A pointer that tasks share; each uses its own part.
pub(crate) struct Shared<T>(pub(crate) *mut T);

// SAFETY: whoever uses it says why the parts are apart.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn at(self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }

    /// # Safety
    /// The part lies in the slice that the pointer is from, and nobody else has it.
    pub(crate) unsafe fn part<'a>(self, start: usize, len: usize) -> &'a mut [T] {
        // SAFETY: as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

/// Runs `task(index, part)` for each `size` elements of a slice, the last ones fewer.
pub fn chunks<T: Send>(data: &mut [T], size: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    let (len, shared) = (data.len(), Shared(data.as_mut_ptr()));
    run(len.div_ceil(size.max(1)), |index| {
        let start = index * size;
        // SAFETY: inside the slice, which is borrowed mutably, and each index is run once.
        task(index, unsafe { shared.part(start, size.min(len - start)) });
    });
}

/// [`chunks`] of two slices at once, as many of either.
pub fn chunks_of_two<A: Send, B: Send>(
    (a, a_size): (&mut [A], usize),
    (b, b_size): (&mut [B], usize),
    task: impl Fn(usize, &mut [A], &mut [B]) + Sync,
) {
    let count = a.len().div_ceil(a_size.max(1));
    assert_eq!(count, b.len().div_ceil(b_size.max(1)));
    let (a_len, b_len) = (a.len(), b.len());
    let (a, b) = (Shared(a.as_mut_ptr()), Shared(b.as_mut_ptr()));
    run(count, |index| {
        let (a_start, b_start) = (index * a_size, index * b_size);
        // SAFETY: inside the slices, which are borrowed mutably, and each index is run once.
        let (a, b) = unsafe {
            (a.part(a_start, a_size.min(a_len - a_start)), b.part(b_start, b_size.min(b_len - b_start)))
        };
        task(index, a, b);
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn every_task_runs_once() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().expect("a pool");
        pool.install(|| {
            for count in [0, 1, 2, 3, 17, 1000] {
                for _ in 0..200 {
                    let seen: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                    run(count, |index| {
                        seen[index].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(seen.iter().all(|seen| seen.load(Ordering::Relaxed) == 1), "{count}");
                }
            }
        });
    }

    #[test]
    fn callers_beside_each_other_and_inside_each_other() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let total = AtomicUsize::new(0);
                        run(8, |outer| {
                            run(8, |inner| {
                                total.fetch_add(outer * 8 + inner, Ordering::Relaxed);
                            });
                        });
                        assert_eq!(total.into_inner(), 63 * 64 / 2);
                    }
                });
            }
        });
    }

    #[test]
    fn a_sleeping_team_wakes() {
        for _ in 0..3 {
            std::thread::sleep(PATIENCE * 20);
            let mut data = vec![0usize; 1001];
            chunks(&mut data, 10, |index, part| part.fill(index));
            assert!(data.iter().enumerate().all(|(at, &value)| value == at / 10));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a pool");
        for _ in 0..20 {
            let failed =
                pool.install(|| catch_unwind(|| run(100, |index| assert!(index != 50, "as it should"))));
            assert!(failed.is_err());
            // The team is whole afterwards.
            let total = AtomicUsize::new(0);
            pool.install(|| run(100, |index| _ = total.fetch_add(index, Ordering::Relaxed)));
            assert_eq!(total.into_inner(), 4950);
        }
    }
}
