//! What all histories together went through: a simulation that exercises nothing must not pass.

use crate::model::Effect;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident >= $least:expr;)*) => {
        /// How often what happened.
        #[derive(Clone, Debug, Default)]
        pub(crate) struct Coverage {
            $($(#[$doc])* pub(crate) $name: u64,)*
        }

        impl Coverage {
            pub(crate) fn add(&mut self, other: &Coverage) {
                $(self.$name += other.$name;)*
            }

            /// What happened less often than it should, in thousands of histories.
            pub(crate) fn gaps(&self, histories: u64) -> Vec<String> {
                let mut gaps = Vec::new();
                $(
                    let least = ($least * histories).div_ceil(1_000);
                    if self.$name < least {
                        gaps.push(format!("{} = {}, less than {least}", stringify!($name), self.$name));
                    }
                )*
                gaps
            }

            pub(crate) fn lines(&self) -> Vec<String> {
                vec![$(format!("{:>9} {}", self.$name, stringify!($name).replace('_', " ")),)*]
            }
        }
    };
}

// The least each must be in a thousand histories: about a third of what is usual, and less of what is rare: seeds nobody has seen must not fail by chance.
counters! {
    operations >= 50_000;
    published >= 10_000;
    duplicates >= 500;
    retries >= 100;
    settled >= 3_000;
    moved >= 300;
    changes >= 1_000;
    announced >= 100;
    purges >= 30;
    purged >= 20;
    deliveries >= 5_000;
    redeliveries >= 500;
    leases_run_out >= 100;
    sessions_taken_over >= 30;
    connections_ended >= 300;
    acks_anywhere >= 50;
    publishes_refused >= 30;
    opened >= 1_500;
    closed_in_order >= 100;
    kills >= 200;
    power_losses >= 300;
    stops_in_a_call >= 200;
    torn_writes >= 5;
    torn_tails_found >= 5;
    crashes_while_opening >= 50;
    unanswered_and_kept >= 50;
    unanswered_and_lost >= 50;
    poisoned >= 30;
    reads_failed >= 0;
    disk_full >= 30;
    disk_full_refusals >= 20;
    waited_for_room >= 0;
    refused_late >= 0;
    bits_flipped >= 80;
    flips_reported >= 20;
    flips_that_cost >= 5;
    segments_begun >= 1_000;
    segments_dropped >= 300;
    records_carried >= 300;
    bodies_read_back >= 1_000;
    messages_recovered >= 3_000;
    quiet_moments >= 300;
}

impl Coverage {
    pub(crate) fn count(&mut self, effect: &Effect) {
        match effect {
            Effect::None => {}
            Effect::Published => self.published += 1,
            Effect::Duplicate => self.duplicates += 1,
            Effect::Settled => self.settled += 1,
            Effect::Moved => self.moved += 1,
            Effect::Purged(sure, perhaps) => {
                self.purges += 1;
                self.purged += sure + perhaps;
            }
            Effect::Changed => self.changes += 1,
            Effect::Announced => self.announced += 1,
        }
    }
}
