//! Every lawful definition can finish, in any weather.

use proptest::prelude::*;
use saga_core::Status;

use crate::definitions::{definitions, patient_definitions};
use crate::world::{Weather, World};

fn finishes(definition: saga_core::Definition, weather: Weather, seed: u64) -> World {
    let mut world = World::new(definition, weather, seed);
    world.start();
    world.run();
    world
}

proptest! {
    #[test]
    fn every_definition_completes_when_everybody_says_yes(definition in definitions()) {
        let world = finishes(definition, Weather::default(), 0);
        prop_assert_eq!(world.status(), Status::Completed);
        prop_assert_eq!(world.seen.len(), 2 * world.definition.steps.len() + 1, "EXECUTE and SUCCESS a step, and the end");
    }

    #[test]
    fn m01_it_completes_when_every_message_arrives_twice(definition in definitions(), seed: u64) {
        let world = finishes(definition, Weather { twice: 50, ..Weather::default() }, seed);
        prop_assert_eq!(world.status(), Status::Completed);
    }

    #[test]
    fn m02_it_completes_when_messages_arrive_in_any_order(definition in definitions(), seed: u64) {
        let world = finishes(definition, Weather { disorder: true, twice: 20, ..Weather::default() }, seed);
        prop_assert_eq!(world.status(), Status::Completed);
    }

    #[test]
    fn m03_it_ends_when_messages_are_lost(definition in patient_definitions(), seed: u64) {
        let world = finishes(definition, Weather { lost: 40, ..Weather::default() }, seed);
        prop_assert!(world.status().is_terminal());
    }

    #[test]
    fn s03_it_completes_when_participants_have_hiccups(definition in patient_definitions(), seed: u64) {
        let world = finishes(definition, Weather { hiccups: 50, ..Weather::default() }, seed);
        prop_assert_eq!(world.status(), Status::Completed, "a transient error compensates nothing");
    }

    #[test]
    fn p05_it_completes_when_the_state_is_read_again_after_every_commit(definition in definitions()) {
        let world = finishes(definition, Weather { crash: true, ..Weather::default() }, 0);
        prop_assert_eq!(world.status(), Status::Completed);
    }

    #[test]
    fn it_completes_when_the_power_fails(definition in patient_definitions(), seed: u64) {
        let world = finishes(definition, Weather { power: 10, ..Weather::default() }, seed);
        prop_assert_eq!(world.status(), Status::Completed);
    }

    #[test]
    fn it_ends_in_a_storm(definition in patient_definitions(), seed: u64) {
        let world = finishes(definition, Weather::STORM, seed);
        prop_assert!(world.status().is_terminal());
    }
}
