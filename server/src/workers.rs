//! The threads that serve connections.

use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::debug;

/// Threads with a runtime each. A connection stays on the one it came to: what wakes it wakes that thread and no other, and its
/// buffers stay in one cache.
pub(crate) struct Workers {
    workers: Vec<Worker>,
}

struct Worker {
    handle: Handle,
    /// One more than its connections.
    load: Arc<()>,
    /// Ends the thread when it is dropped.
    _stop: oneshot::Sender<()>,
}

impl Workers {
    /// Without a number there are none, and connections are served by the runtime this is called in.
    pub(crate) fn start(threads: Option<NonZeroUsize>) -> io::Result<Workers> {
        let workers = (0..threads.map_or(0, NonZeroUsize::get)).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Workers { workers })
    }

    /// Has the worker with the fewest connections serve this one.
    pub(crate) fn spawn<F>(
        &self,
        connections: &mut JoinSet<()>,
        stream: TcpStream,
        serve: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let Some(worker) = self.workers.iter().min_by_key(|worker| Arc::strong_count(&worker.load)) else {
            connections.spawn(async move { serve(stream).await });
            return;
        };
        let (load, stream) = (Arc::clone(&worker.load), stream.into_std());
        let there = async move {
            let _load = load;
            match stream.and_then(TcpStream::from_std) {
                Ok(stream) => serve(stream).await,
                Err(fault) => debug!(%fault, "connection lost before it was served"),
            }
        };
        connections.spawn_on(there, &worker.handle);
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Worker> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        // Its end is the sender's: whoever is left then is dropped with the runtime.
        let serve = move || drop(runtime.block_on(stopped));
        thread::Builder::new().name(format!("worker-{number}")).spawn(serve)?;
        Ok(Worker { handle, load: Arc::new(()), _stop: stop })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    /// Hands one connection to the workers; says which thread got it. It ends with the sender.
    async fn serve(workers: &Workers, connections: &mut JoinSet<()>) -> (String, oneshot::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (ours, _) =
            tokio::try_join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept()).unwrap();
        let (name, mut names) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        workers.spawn(connections, ours, move |stream| async move {
            name.send(thread::current().name().unwrap_or_default().to_owned()).await.unwrap();
            drop(stopped.await);
            drop(stream);
        });
        (names.recv().await.unwrap(), stop)
    }

    #[tokio::test]
    async fn each_connection_goes_to_the_worker_with_the_fewest() {
        let (workers, mut connections) = (Workers::start(NonZeroUsize::new(2)).unwrap(), JoinSet::new());
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(serve(&workers, &mut connections).await);
        }
        let names: Vec<&str> = held.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["worker-0", "worker-1", "worker-0", "worker-1"]);

        held.retain(|(name, _)| name == "worker-0");
        connections.join_next().await.unwrap().unwrap();
        connections.join_next().await.unwrap().unwrap();
        for _ in 0..2 {
            let next = serve(&workers, &mut connections).await;
            assert_eq!(next.0, "worker-1");
            held.push(next);
        }
    }

    #[tokio::test]
    async fn without_threads_of_its_own_the_runtime_that_is_there_serves() {
        let (workers, mut connections) = (Workers::start(None).unwrap(), JoinSet::new());
        let (name, _stop) = serve(&workers, &mut connections).await;
        assert_eq!(Some(name.as_str()), thread::current().name());
    }
}
