//! A connection with its lanes. One task drives it: replies are handed to their lanes, whose next requests then go out in
//! one write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::bulk::{self, Job};
use super::lane::{Ended, Lane};
use super::{Budget, Outcome};
use crate::client::{Connection, Result, Tree, Trouble};

pub struct Station {
    connection: Connection,
    tree: Tree,
    lanes: Vec<Lane>,
    done: Arc<AtomicU64>,
    broken: bool,
}

impl Station {
    pub fn new(connection: Connection, tree: Tree, lanes: Vec<Lane>, done: Arc<AtomicU64>) -> Station {
        Station { connection, tree, lanes, done, broken: false }
    }

    /// Whether the connection broke in a measurement.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Has the lanes do operations for as long as the budget lasts.
    pub async fn drive(&mut self, budget: &Budget) -> Outcome {
        let mut outcome = Outcome::empty();
        if !self.broken
            && let Err(trouble) = self.try_drive(budget, &mut outcome).await
        {
            self.broken = true;
            *outcome.errors.entry(trouble.to_string()).or_default() += 1;
        }
        outcome
    }

    async fn try_drive(&mut self, budget: &Budget, outcome: &mut Outcome) -> Result<()> {
        let mut active = 0;
        let mut now = Instant::now();
        for number in 0..self.lanes.len() {
            active += usize::from(self.begin(number, budget, now)?);
        }
        while active > 0 {
            self.connection.progress().await?;
            while let Some(reply) = self.connection.next_reply() {
                let number = reply.ticket as usize;
                let lane = &mut self.lanes[number];
                match lane.advance(&reply, &mut self.connection, self.tree, number as u64)? {
                    Ended::NotYet => continue,
                    Ended::Well { bytes } => {
                        now = Instant::now();
                        outcome.operations += 1;
                        outcome.bytes += bytes;
                        let nanoseconds = now.duration_since(lane.began).as_nanos() as u64;
                        // The histogram grows with its values; it takes all that a clock can show.
                        let _ = outcome.latencies.record(nanoseconds.max(1));
                        self.done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ended::Badly(why) => {
                        now = Instant::now();
                        *outcome.errors.entry(why).or_default() += 1;
                    }
                }
                if !self.begin(number, budget, now)? {
                    active -= 1;
                }
            }
        }
        Ok(())
    }

    /// Begins a lane's next operation, if there is to be one.
    fn begin(&mut self, number: usize, budget: &Budget, now: Instant) -> Result<bool> {
        let lane = &mut self.lanes[number];
        if !lane.has_material() {
            budget.over.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        if !budget.take(now) {
            return Ok(false);
        }
        lane.began = now;
        lane.begin(&mut self.connection, self.tree, number as u64)?;
        Ok(true)
    }

    /// Does jobs outside the clock.
    pub async fn work_off(&mut self, jobs: Vec<Job>) -> Result<()> {
        self.must_be_whole()?;
        bulk::work_off(&mut self.connection, self.tree, &jobs).await
    }

    /// What each lane has of its own, open files too.
    pub async fn furnish(&mut self) -> Result<()> {
        for lane in &mut self.lanes {
            bulk::work_off(&mut self.connection, self.tree, &lane.furniture()).await?;
            lane.open_held(&mut self.connection, self.tree).await?;
        }
        Ok(())
    }

    /// Material for so many operations of each lane.
    pub async fn restock(&mut self, each: u64) -> Result<()> {
        self.must_be_whole()?;
        let steps: Vec<Vec<Vec<Job>>> = self.lanes.iter_mut().map(|lane| lane.restock(each)).collect();
        self.in_steps(steps).await
    }

    /// Closes what is open and removes what the lanes made.
    pub async fn finish(&mut self) -> Result<()> {
        self.must_be_whole()?;
        for lane in &mut self.lanes {
            lane.close_held(&mut self.connection, self.tree).await?;
        }
        let steps: Vec<Vec<Vec<Job>>> = self.lanes.iter_mut().map(Lane::remains).collect();
        self.in_steps(steps).await
    }

    /// Does the first jobs of all lanes, then the second ones, and so on: a lane's step may need the one before it.
    async fn in_steps(&mut self, lanes: Vec<Vec<Vec<Job>>>) -> Result<()> {
        let mut steps: Vec<Vec<Job>> = Vec::new();
        for lane in lanes {
            for (number, jobs) in lane.into_iter().enumerate() {
                match steps.get_mut(number) {
                    Some(step) => step.extend(jobs),
                    None => steps.push(jobs),
                }
            }
        }
        for step in steps {
            bulk::work_off(&mut self.connection, self.tree, &step).await?;
        }
        Ok(())
    }

    fn must_be_whole(&self) -> Result<()> {
        if self.broken { Err(Trouble::Broken("the connection broke".to_owned())) } else { Ok(()) }
    }
}
