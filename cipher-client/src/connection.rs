//! The task that owns the socket: sends what is due, reads what came, comes
//! back after a loss.
//!
//! One task a client. Whatever waits is sent in one write; whatever a read
//! brought is taken in under one lock.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ciphermq_protocol::Code;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep, timeout};

use crate::Result;
use crate::alarm::Alarm;
use crate::backoff::Backoff;
use crate::fault::Fault;
use crate::link::{Connect, Greeting, Link, WRITE_BYTES, establish};
use crate::options::ConnectOptions;
use crate::shared::Shared;
use crate::state::{Effects, Ended};

/// How long `quit` may take; the broker needs no time for it.
const QUIT_WAIT: Duration = Duration::from_secs(1);

/// Connects, and leaves a task behind that stays connected.
pub(crate) async fn start<C: Connect>(connector: C, options: ConnectOptions, rng: StdRng) -> Result<Arc<Shared>> {
    let shared = Arc::new(Shared::new(&options));
    let (link, greeting) = establish(&connector, &options, None).await?;
    let mut connection = Connection {
        shared: shared.clone(),
        connector,
        backoff: Backoff::new(options.backoff.clone()),
        options,
        rng,
        session: None,
        alarm: Alarm::new(),
        fx: Effects::default(),
        ended: Ended::GaveUp("the runtime the client ran on was shut down".into()),
    };
    connection.greeted(greeting);
    tokio::spawn(connection.run(link));
    Ok(shared)
}

/// A generator for the spread of waiting times; nothing secret comes from it.
pub(crate) fn jitter() -> StdRng {
    StdRng::try_from_rng(&mut rand::rngs::SysRng).unwrap_or_else(|_| StdRng::seed_from_u64(0))
}

struct Connection<C: Connect> {
    shared: Arc<Shared>,
    connector: C,
    options: ConnectOptions,
    backoff: Backoff,
    rng: StdRng,
    session: Option<String>,
    alarm: Alarm,
    fx: Effects,
    /// What those learn who still wait when the task ends.
    ended: Ended,
}

impl<C: Connect> Connection<C> {
    async fn run(mut self, mut link: Link<C::Io>) {
        loop {
            let fault = match poll_fn(|cx| self.poll(&mut link, cx)).await {
                Ok(()) => return self.quit(link).await,
                Err(fault) => fault,
            };
            tracing::warn!(error = %fault, "connection to the broker lost");
            self.lost(&fault, link.since.elapsed());
            // Before the next `hello`: the broker should see the end of this one.
            drop(link);
            match self.reconnect(fault).await {
                Ok(Some(next)) => link = next,
                Ok(None) => return self.ended = Ended::ByOwner,
                Err(fault) => return self.ended = Ended::GaveUp(fault.to_string().into()),
            }
        }
    }

    fn greeted(&mut self, greeting: Greeting) {
        let deadline = self.shared.deadline();
        self.session = Some(greeting.session);
        self.shared.with(|state, fx| state.connected(greeting.line_bytes_max, deadline, fx));
    }

    fn lost(&mut self, fault: &Fault, uptime: Duration) {
        if matches!(fault, Fault::Closing { code: Code::TakenOver, .. }) {
            // Two that take over from each other would never stop.
            self.session = None;
        }
        self.backoff.connection_lasted(uptime);
        self.shared.with(|state, fx| state.disconnected(fault, fx));
    }

    /// The next connection; `None` when the owner closed the client first.
    async fn reconnect(&mut self, mut fault: Fault) -> Result<Option<Link<C::Io>>, Fault> {
        loop {
            let Some(wait) = self.backoff.next(&mut self.rng) else { return Err(fault) };
            let attempt = async {
                sleep(wait).await;
                establish(&self.connector, &self.options, self.session.as_deref()).await
            };
            match attend(&self.shared, &mut self.alarm, attempt).await {
                None => return Ok(None),
                Some(Ok((link, greeting))) => {
                    tracing::info!(address = self.options.address, "connected to the broker again");
                    self.greeted(greeting);
                    return Ok(Some(link));
                }
                Some(Err(again)) => {
                    tracing::debug!(error = %again, "no connection to the broker");
                    fault = again;
                }
            }
        }
    }

    async fn quit(&mut self, link: Link<C::Io>) {
        self.ended = Ended::ByOwner;
        match timeout(QUIT_WAIT, link.quit()).await {
            Ok(Ok(())) => tracing::debug!("connection to the broker closed"),
            Ok(Err(error)) => tracing::debug!(%error, "connection to the broker broken off"),
            Err(_) => tracing::debug!("the broker did not close the connection in time"),
        }
    }

    /// Moves bytes until nothing moves; ends when the client is closed and has
    /// nothing left to wait for, or with the fault that ended the connection.
    fn poll(&mut self, link: &mut Link<C::Io>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            let wrote = self.write(link, cx)?;
            let read = self.read(link, cx)?;
            if wrote || read {
                continue;
            }
            let now = Instant::now();
            {
                let mut state = self.shared.lock();
                if state.is_finished(now) {
                    return Poll::Ready(Ok(()));
                }
                if link.is_flushed() && state.has_output() {
                    continue;
                }
                state.rest(cx);
                state.new_deadline().into_iter().for_each(|at| self.alarm.arm(at));
                let periods = if state.is_waiting_for_answers() { 2 } else { 1 };
                self.alarm.arm(link.last_heard + self.options.idle_ping * periods);
            }
            if !self.alarm.fires(cx) {
                return Poll::Pending;
            }
            self.look_at_the_clock(link, now)?;
        }
    }

    fn write(&mut self, link: &mut Link<C::Io>, cx: &mut Context<'_>) -> Result<bool, Fault> {
        if let Some(out) = link.outbox() {
            self.shared.lock().write(out, WRITE_BYTES);
        }
        link.poll_write(cx)
    }

    fn read(&mut self, link: &mut Link<C::Io>, cx: &mut Context<'_>) -> Result<bool, Fault> {
        match link.poll_read(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(outcome) => outcome?,
        }
        let now = Instant::now();
        link.last_heard = now;
        let outcome = {
            let mut state = self.shared.lock();
            loop {
                match link.next_line() {
                    Ok(Some(line)) => match state.receive(line, now, &mut self.fx) {
                        Ok(()) => {}
                        Err(fault) => break Err(fault),
                    },
                    Ok(None) => break Ok(true),
                    Err(fault) => break Err(fault),
                }
            }
        };
        self.shared.apply(&mut self.fx);
        outcome
    }

    /// Deadlines, and a broker that has gone silent.
    fn look_at_the_clock(&mut self, link: &Link<C::Io>, now: Instant) -> Result<(), Fault> {
        let idle = self.options.idle_ping;
        let deadline = self.shared.deadline();
        let (silent, next) = self.shared.with(|state, fx| {
            state.expire(now, fx);
            let waits = state.is_waiting_for_answers();
            let silent = waits && now >= link.last_heard + idle * 2;
            if !waits && now >= link.last_heard + idle {
                state.ping(deadline);
            }
            (silent, state.next_deadline())
        });
        if silent {
            return Err(Fault::Silent);
        }
        next.into_iter().for_each(|at| self.alarm.arm(at));
        Ok(())
    }
}

impl<C: Connect> Drop for Connection<C> {
    fn drop(&mut self) {
        let ended = self.ended.clone();
        self.shared.with(|state, fx| state.end(ended, fx));
        self.shared.close_bounds();
        self.shared.ended.send_replace(true);
    }
}

/// Runs `work` while there is no connection: deadlines pass, and the owner may
/// close the client, which ends it with `None`.
async fn attend<T>(shared: &Shared, alarm: &mut Alarm, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(out) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(out));
        }
        loop {
            let now = Instant::now();
            {
                let mut state = shared.lock();
                if state.is_finished(now) {
                    return Poll::Ready(None);
                }
                state.rest(cx);
                state.new_deadline().into_iter().for_each(|at| alarm.arm(at));
            }
            if !alarm.fires(cx) {
                return Poll::Pending;
            }
            let next = shared.with(|state, fx| {
                state.expire(now, fx);
                state.next_deadline()
            });
            next.into_iter().for_each(|at| alarm.arm(at));
        }
    })
    .await
}

#[cfg(test)]
mod tests;
