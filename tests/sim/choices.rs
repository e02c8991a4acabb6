//! What the judge cannot know, and therefore tries one way after another: whichever log a lane has
//! read, one of the possible ones must give all that is there.

/// After so many tries something is held to be wrong.
const TRIES_MAX: usize = 2000;

/// The choices that were made on the way of one try, in their order, each with how many ways there
/// were.
#[derive(Default)]
pub struct Choices {
    made: Vec<(usize, usize)>,
    /// How many of them this try has come to.
    reached: usize,
}

impl Choices {
    /// Chooses one of `ways`: as the try is to go on, or the first one where it goes on anew.
    pub fn one_of(&mut self, ways: usize) -> usize {
        if self.reached == self.made.len() {
            self.made.push((0, ways));
        }
        self.reached += 1;
        self.made[self.reached - 1].0
    }

    /// Goes to the next try: the last choice that had another way takes it. Returns whether there
    /// was one.
    fn next_try(&mut self) -> bool {
        self.reached = 0;
        while let Some((chosen, ways)) = self.made.pop() {
            if chosen + 1 < ways {
                self.made.push((chosen + 1, ways));
                return true;
            }
        }
        false
    }
}

/// The first try that is right.
///
/// # Errors
/// No try is right; this is what is wrong with the first one.
pub fn first_right<T>(mut one: impl FnMut(&mut Choices) -> Result<T, String>) -> Result<T, String> {
    let mut choices = Choices::default();
    let first = one(&mut choices);
    for _ in 1..TRIES_MAX {
        if first.is_ok() || !choices.next_try() {
            break;
        }
        if let Ok(right) = one(&mut choices) {
            return Ok(right);
        }
    }
    first
}

#[test]
fn each_way_through_all_choices_is_tried_once() {
    let mut seen = Vec::new();
    let none: Result<(), String> = first_right(|choices| {
        let a = choices.one_of(2);
        // Where the first choice fails at once, the second one is never made.
        let b = if a == 0 { 0 } else { choices.one_of(3) };
        seen.push((a, b));
        Err(format!("{a} {b}"))
    });
    assert_eq!(none, Err("0 0".to_owned()));
    assert_eq!(seen, [(0, 0), (1, 0), (1, 1), (1, 2)]);
}
