//! The seeded defects, and for each the model that has to break: each wrong turn is one that the design forbids by a rule
//! of its own.

use std::sync::Arc;

use shoal_vfs::sync::Defect;

use crate::backend::model;
use crate::run::catches;
use crate::{names, rules, told, tree};

/// The model that breaks. Exhaustive: no defect goes without.
fn broken_by(defect: Defect) -> Option<Arc<dyn Fn() + Send + Sync>> {
    macro_rules! by {
        ($model:expr) => {
            Some(Arc::new(model($model)) as Arc<dyn Fn() + Send + Sync>)
        };
    }
    match defect {
        Defect::None => None,
        // The order of locks.
        Defect::NamesThenDrain | Defect::NoDeadMark | Defect::NoGate => by!(tree::rmdir_mess),
        Defect::UnorderedClaims => by!(tree::opposite_renames),
        Defect::UnorderedGates => by!(rules::removals_all_the_way_up),
        Defect::NoTopology | Defect::NoLoopCheck => by!(tree::no_loops),
        Defect::TopologyFirst => by!(rules::moves_of_two_directories),
        Defect::UnorderedOpens => by!(rules::renames_of_two_objects),
        Defect::NoEscalator => by!(rules::escalator),
        // Hand-off and cancellation.
        Defect::RequestOwnedClaim => by!(names::claims_are_exclusive_under_cancel),
        Defect::LostGrant => by!(names::waiters_are_cancelled),
        Defect::NoHandOff => by!(names::readers_are_cancelled),
        Defect::LooksThenLines => by!(names::waiters_are_cancelled),
        // Publication.
        Defect::SourceThenTarget | Defect::TargetThenSource => by!(rules::renames_are_one_instant),
        Defect::ValueAtPoll => by!(names::answers_carry_their_value),
        Defect::MissingRecheck => by!(tree::renames_of_one_link),
        Defect::UncountedMoves => by!(tree::paths_of_one_instant),
        Defect::UnsettledListing => by!(names::listings_are_settled),
        Defect::AnswersLateComers => by!(names::late_comers_ask_again),
        Defect::LetsGoOfHeld => by!(names::names_come_and_go),
        Defect::ForgetsOtherSpellings => by!(rules::several_spellings),
        // Opens.
        Defect::OpenIgnoresGone => by!(names::opens_against_replacement),
        Defect::OpenIgnoresPlace => by!(rules::opens_by_name),
        Defect::OpenIgnoresMoves => by!(rules::opens_below_a_move),
        // What others change, and the index.
        Defect::DrainedIsEmpty => by!(told::barrier),
        Defect::IgnoresRecheck => by!(told::changes_during_a_lookup),
        Defect::StampAfterCall => by!(told::lost_during_a_lookup),
        Defect::WatchesLate => by!(told::stamps),
        Defect::ExpectsForEver => by!(told::own_changes_are_told_once),
        Defect::WaitsCaughtUp => by!(told::makings_meet_foreign_ones),
        Defect::IndexBehindOurs => by!(told::makings_are_evicted),
        Defect::KeepsLostIndex => by!(told::changes_are_lost),
        Defect::FillWithoutJournal => by!(told::fills),
        Defect::SureOfTheUnknown => by!(told::fills_beside_the_unknown),
        Defect::FillForgetsTheLearnt => by!(told::fills_beside_a_lost_answer),
        // Failures.
        Defect::KeepsAfterUnknown => by!(names::unknown_outcomes),
        Defect::LetsGoUnknown => by!(rules::unknown_removals),
        Defect::AssumesUndone => by!(rules::unknown_renames),
        Defect::DeadTooEarly => by!(rules::failed_removals),
        Defect::ErrorIsAbsence => by!(rules::errors_are_told),
        Defect::TellsOfStrangers => by!(rules::strangers_remove),
        Defect::MovesAreNotCounted => by!(tree::directories_move_away_and_back),
        Defect::RenamesWhatIsThere => by!(rules::renames_by_an_old_link),
    }
}

#[test]
fn seeded_defects() {
    let missed: Vec<_> = Defect::ALL
        .iter()
        .copied()
        .filter(|defect| broken_by(*defect).is_some_and(|model| !catches(*defect, model)))
        .collect();
    assert!(missed.is_empty(), "missed {missed:?}");
}
