//! Ctrl-C: the first asks the work to end well, the second ends the program.

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The flag that ctrl-C sets, one for the whole program.
pub fn flag() -> anyhow::Result<Arc<AtomicBool>> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    if let Some(flag) = FLAG.get() {
        return Ok(flag.clone());
    }
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    ctrlc::set_handler(move || {
        // The second is for what cannot be asked to stop, such as a download.
        if set.swap(true, Ordering::SeqCst) {
            process::exit(130);
        }
    })?;
    Ok(FLAG.get_or_init(|| flag).clone())
}
