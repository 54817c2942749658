//! What a run makes and costs at most, and the sentence of it. The prices are those of us-east-1, as of June 2023 (the EBS
//! pricing page); how many calls the bodies make `tests/live` holds against those that they made.

use bakehouse::cloud::Region;

use crate::bake::Base;

/// For 1,000 calls.
const PUT: f64 = 0.006;
const GET: f64 = 0.003;
const LIST: f64 = 0.0006;
/// For a GB of snapshots and a month.
const STORED: f64 = 0.05;
/// Of a month: 24 × 365 ÷ 12.
const HOURS: f64 = 730.0;

/// What the bodies ask for at most.
const BODIES: Calls = Calls { puts: 200, gets: 100, lists: 100 };
/// A base of 8 GiB of which every block of 512 KiB is there, and 1 GiB of changes.
const BAKE: Calls = Calls { puts: 2048, gets: 16_384, lists: 10 };
const BASE_GIB: f64 = 8.0;
/// What all of it holds: the base's copy, and a GiB of everything else.
const GIB: f64 = BASE_GIB + 1.0;

struct Calls {
    puts: u32,
    gets: u32,
    lists: u32,
}

impl Calls {
    fn price(&self) -> f64 {
        (f64::from(self.puts) * PUT + f64::from(self.gets) * GET + f64::from(self.lists) * LIST) / 1000.0
    }

    fn sum(&self) -> String {
        let Self { puts, gets, lists } = self;
        format!(
            "{puts} puts × ${PUT} + {gets} gets × ${GET} + {lists} listings × ${LIST}, each for 1,000 = ${:.4}",
            self.price()
        )
    }
}

/// What is said before anything is asked.
pub fn announcement(who: &str, region: &Region, base: &Base) -> String {
    let stored = GIB * STORED / HOURS;
    let all = BODIES.price() + BAKE.price() + stored;
    format!(
        "This works as {who} in {region} and makes, for some minutes:\n\
         \x20 about 60 snapshots of 1 or 2 GiB with a few blocks of 512 KiB in each, 20 images and copies of them, and 10 \
         parameters\n\
         \x20 an import of {base}: a copy of its whole snapshot\n\
         \x20 an image with a snapshot of its changes\n\
         At the prices of us-east-1 that costs at most:\n\
         \x20 the bodies of tests/conformance: at most {}\n\
         \x20 the bake, of a base of {BASE_GIB} GiB: at most {}\n\
         \x20 {GIB} GiB stored for an hour × ${STORED} a GB and month ÷ {HOURS} hours = ${stored:.4}\n\
         \x20 in all ${all:.2}\n\
         All of it is deleted at the end, the import too where it was not there before: if other bakes run here meanwhile, name \
         a base with BASE that they do not import. What a kill leaves has tags that begin with bakehouse:, and `bakehouse \
         sweep` deletes it when it has expired, in two hours; the import stays, and so do the parameters, which cost nothing.\n",
        BODIES.sum(),
        BAKE.sum(),
    )
}
