//! The thread that all processes and wires belong to: they outlive the test that asked for them first.

use std::sync::LazyLock;

use tokio::runtime::Handle;

static HOME: LazyLock<Handle> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
});

/// The runtime of that thread.
pub(crate) fn home() -> &'static Handle {
    &HOME
}

/// Does something on that thread.
pub(crate) async fn at_home<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match HOME.spawn(async { work() }).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
