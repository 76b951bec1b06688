//! Reading around runs that cannot be mapped. One of them fails the whole statement: what it was read
//! with is read again in halves, down to that run, which is passed over and counted.

use super::look_up::{Lookup, Window};
use super::mapping::From;
use super::order::Order;
use super::session::Again;
use super::unmappable::Unmappable;
use super::{History, HistoryError};
use crate::model::RawUse;

/// Consecutive runs.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) from: From,
    pub(super) end: String,
    /// How many they were when they were counted.
    pub(super) runs: u64,
}

/// The parts of a range that are to be read: all of it at once, and where that fails, smaller ones.
#[derive(Debug)]
pub(super) struct Around<'a> {
    history: &'a History,
    unmappable: &'a Unmappable,
    /// That of the keys that it is cut by.
    order: Order,
    /// The last one comes first.
    parts: Vec<Part>,
    /// Runs of it that were passed over.
    pub(super) passed_over: u64,
}

impl<'a> Around<'a> {
    pub(super) fn of(history: &'a History, unmappable: &'a Unmappable, range: Part) -> Self {
        Self {
            history,
            unmappable,
            order: history.key_order(),
            parts: vec![range],
            passed_over: 0,
        }
    }

    /// The next part to be read; what became of it is told to [`Around::was`].
    pub(super) fn next(&mut self) -> Option<Part> {
        self.parts.pop()
    }

    /// What became of reading a part. Where one of its runs cannot be mapped, its halves come next, or
    /// this run is passed over, if it is the only one.
    pub(super) async fn was(
        &mut self,
        part: Part,
        read: Result<(), HistoryError>,
    ) -> Result<(), HistoryError> {
        if self.history.key_order() != self.order {
            return Err(HistoryError::Reordered);
        }
        let error = match read {
            Ok(()) => return Ok(()),
            Err(error) if error.is_of_the_data() => error,
            Err(error) => return Err(error),
        };
        let half = u32::try_from(part.runs / 2).unwrap_or(u32::MAX).max(1);
        let cut = self.history.window_end(&part.from, &part.end, half);
        let (middle, runs) = cut.await?;
        match (runs, middle == part.end) {
            // It fails without any run.
            (0, _) if part.runs == 0 => return Err(error),
            (1, true) if half == 1 => {
                self.unmappable.pass_over(&part.end, &error)?;
                self.passed_over += 1;
            }
            // Some went since they were counted.
            (_, true) => self.parts.push(Part { runs, ..part }),
            (_, false) => {
                let behind = Part {
                    from: From::Behind(middle.clone()),
                    end: part.end,
                    runs: part.runs.saturating_sub(runs).max(1),
                };
                let before = Part {
                    from: part.from,
                    end: middle,
                    runs,
                };
                self.parts.extend([behind, before]);
            }
        }
        Ok(())
    }
}

impl History {
    /// Every run, to be read around; `None` where there is none.
    pub(super) async fn everything(&self) -> Result<Option<Part>, HistoryError> {
        self.look_at_order().await?;
        let Some(end) = self.last_key().await? else {
            return Ok(None);
        };
        // As large as it gets: this counts them.
        let (_, runs) = self.window_end(&From::First, &end, u32::MAX).await?;
        let from = From::First;
        Ok(Some(Part { from, end, runs }))
    }

    /// Looks pairs of a workspace and a published run up, as [`History::look_up`], around the runs that
    /// cannot be mapped. `take` may be given a row more than once.
    ///
    /// # Errors
    /// As [`History::look_up`], and [`HistoryError::Unmappable`].
    pub(crate) async fn look_up_pairs(
        &self,
        pairs: &[(&str, &str)],
        unmappable: &Unmappable,
        mut take: impl FnMut(RawUse<'_>) + Send,
    ) -> Result<(), HistoryError> {
        let looked = self
            .look_up(Lookup::Pairs(pairs, None), Again(&mut take))
            .await;
        match looked {
            Err(error) if error.is_of_the_data() => {}
            looked => return looked,
        }
        let Some(everything) = self.everything().await? else {
            return Ok(());
        };
        let mut around = Around::of(self, unmappable, everything);
        while let Some(part) = around.next() {
            let lookup = Lookup::Pairs(pairs, Some(Window(&part.from, &part.end)));
            let looked = self.look_up(lookup, Again(&mut take)).await;
            self.look_at_order().await?;
            around.was(part, looked).await?;
        }
        Ok(())
    }
}
