//! Pages against the plain rule: the items of the list that are not gone, cut into pages.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::ready;
use std::sync::Mutex;

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Item(usize, String);

impl Candidate for Item {
    fn published_run(&self) -> &str {
        &self.1
    }
}

/// `p…` have cards, `g…` are gone, of `u…` nothing is known.
#[derive(Default)]
struct Known {
    /// How many ids each call asked for.
    asked: Mutex<Vec<usize>>,
}

impl Ask for Known {
    async fn of(&self, published_runs: &[&str]) -> Answers {
        self.asked.lock().unwrap().push(published_runs.len());
        let detail = |id: &str| match id.as_bytes()[0] {
            b'p' => Detail::Card(format!("{{\"id\":\"{id}\"}}").into()),
            b'g' => Detail::Gone,
            _ => Detail::Unknown,
        };
        let known = published_runs.iter().map(|id| (Arc::from(*id), detail(id)));
        Answers(known.collect())
    }
}

/// A list by the kinds of its items, such as `pgu`.
fn list(kinds: &str) -> Vec<Item> {
    let item = |(at, kind)| Item(at, format!("{kind}{at}"));
    kinds.chars().enumerate().map(item).collect()
}

fn read(list: &[Item], behind: Option<&Item>, count: usize) -> Candidates<Item> {
    let from = behind.map_or(0, |item| item.0 + 1);
    let rest = &list[from..];
    Candidates {
        items: rest[..count.min(rest.len())].to_vec(),
        more: rest.len() > count,
    }
}

/// Pages of these lists behind these items, with how much each further read asked for.
async fn pages(
    known: &Known,
    lists: &[Vec<Item>],
    behind: &[Option<Item>],
    limit: usize,
) -> (Vec<Filled<Item>>, Vec<Vec<(usize, u32)>>) {
    let first = lists.iter().zip(behind);
    let first = first.map(|(list, behind)| read(list, behind.as_ref(), limit + 1));
    let refills = RefCell::new(Vec::new());
    let more = |wanted: Vec<Refill<Item>>| {
        let counts = wanted.iter().map(|refill| (refill.list, refill.count));
        refills.borrow_mut().push(counts.collect());
        let read = |refill: &Refill<Item>| {
            read(
                &lists[refill.list],
                Some(&refill.after),
                refill.count as usize,
            )
        };
        ready(Ok::<_, Infallible>(wanted.iter().map(read).collect()))
    };
    let filled = fill(known, limit, true, first.collect(), |_| None, more).await;
    let filled = filled.unwrap_or_else(|never| match never {});
    (filled, refills.into_inner())
}

async fn page(kinds: &str, limit: usize) -> (Filled<Item>, Vec<Vec<(usize, u32)>>, usize) {
    let known = Known::default();
    let (mut filled, refills) = pages(&known, &[list(kinds)], &[None], limit).await;
    let calls = known.asked.lock().unwrap().len();
    (filled.remove(0), refills, calls)
}

fn ids(page: &Filled<Item>) -> Vec<usize> {
    page.items.iter().map(|(item, _)| item.0).collect()
}

#[tokio::test]
async fn pages_are_the_items_that_are_not_gone_for_every_short_list_and_limit() {
    let kinds = ['p', 'g', 'u'];
    let lists = (0..=7).flat_map(|length| {
        (0..3_usize.pow(length)).map(move |number| {
            let digit = |at| kinds[number / 3_usize.pow(at) % 3];
            (0..length).map(digit).collect::<String>()
        })
    });
    for kinds in lists {
        let list = list(&kinds);
        let shown: Vec<usize> = list
            .iter()
            .filter(|item| !item.1.starts_with('g'))
            .map(|item| item.0)
            .collect();
        for limit in 1..=4 {
            let mut behind = None;
            let mut expected = shown.chunks(limit).peekable();
            loop {
                let (mut filled, _) = pages(
                    &Known::default(),
                    std::slice::from_ref(&list),
                    &[behind],
                    limit,
                )
                .await;
                let page = filled.remove(0);
                let shown = expected.next().unwrap_or_default();
                assert_eq!(ids(&page), shown, "{kinds}, {limit}");
                let unknown = page.items.iter().any(|(item, _)| item.1.starts_with('u'));
                assert_eq!(page.unavailable, unknown, "{kinds}, {limit}");
                for (item, card) in &page.items {
                    let expected = item
                        .1
                        .starts_with('p')
                        .then(|| format!("{{\"id\":\"{}\"}}", item.1));
                    assert_eq!(card.as_deref(), expected.as_deref());
                }
                behind = page.next;
                let follows = expected.peek().is_some();
                let said = "no page is missing, and none but the first is empty";
                assert_eq!(behind.is_some(), follows, "{kinds}, {limit}: {said}");
                if !follows {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_page_without_gone_items_is_read_once_and_asks_once() {
    for kinds in ["pppp", "pppppppp", "pp", "upup", ""] {
        let (_, refills, calls) = page(kinds, 4).await;
        assert_eq!(refills, Vec::<Vec<_>>::new(), "{kinds}");
        assert_eq!(calls, usize::from(!kinds.is_empty()), "{kinds}");
    }
}

#[tokio::test]
async fn a_page_is_filled_up_by_a_hundred_more_then_by_a_thousand_then_is_shorter_with_a_next() {
    let gone = |count| "g".repeat(count);
    let kinds = format!("pg{}pppp", gone(97));
    let (filled, refills, calls) = page(&kinds, 2).await;
    assert_eq!(
        (ids(&filled), refills, calls),
        (vec![0, 99], vec![vec![(0, 100)]], 2)
    );
    assert_eq!(filled.next.map(|item| item.0), Some(99));

    let kinds = format!("pg{}pppp", gone(1_098));
    let (filled, refills, calls) = page(&kinds, 2).await;
    let both = vec![vec![(0, 100)], vec![(0, 1_000)]];
    assert_eq!(
        (ids(&filled), refills, calls),
        (vec![0, 1_100], both.clone(), 3)
    );

    let kinds = format!("pg{}ppp", gone(1_101));
    let (filled, refills, calls) = page(&kinds, 2).await;
    assert_eq!((ids(&filled), refills, calls), (vec![0], both, 3));
    // Behind what was looked at, not behind what is shown: the next page does not do it all again.
    let next = filled.next.expect("there is more");
    assert_eq!(next.0, 1_102);
    let known = Known::default();
    let (mut filled, refills) = pages(&known, &[list(&kinds)], &[Some(next)], 2).await;
    let last = filled.remove(0);
    assert_eq!((ids(&last), refills.len()), (vec![1_103, 1_104], 0));

    let (filled, ..) = page(&gone(1_102), 2).await;
    assert_eq!(
        (ids(&filled), filled.next),
        (vec![], None),
        "and nothing behind it"
    );

    let (filled, refills, _) = page(&format!("p{}", gone(1_101)), 1).await;
    assert_eq!(
        (ids(&filled), filled.next, refills.len()),
        (vec![0], None, 2)
    );
    let (filled, refills, _) = page(&format!("p{}", gone(1_102)), 1).await;
    let next = filled.next.as_ref().map(|item| item.0);
    assert_eq!((next, refills.len()), (Some(1_101), 2), "it is not known");
}

#[tokio::test]
async fn the_lists_of_a_batch_are_read_on_and_asked_for_together() {
    let known = Known::default();
    let gone = format!("gg{}pp", "g".repeat(100));
    let lists = [
        list("pppp"),
        list("gpgppp"),
        list(&gone),
        list("gg"),
        list(""),
    ];
    let (filled, refills) = pages(&known, &lists, &[const { None }; 5], 2).await;
    let shown: Vec<_> = filled.iter().map(ids).collect();
    assert_eq!(
        shown,
        [vec![0, 1], vec![1, 3], vec![102, 103], vec![], vec![]]
    );
    assert_eq!(refills, [vec![(1, 100), (2, 100)], vec![(2, 1_000)]]);
    let asked = [3 + 3 + 3 + 2, 3 + 100, 1];
    assert_eq!(*known.asked.lock().unwrap(), asked);
}

#[tokio::test]
async fn a_full_page_is_not_read_on_where_nobody_asks_for_the_next_one() {
    let read_on = |_| -> std::future::Ready<Result<_, Infallible>> { panic!("it is read on") };
    let at_hand = |_| panic!("what is at hand is taken");
    let first = vec![read(&list("ppgp"), None, 3)];
    let filled = fill(&Known::default(), 2, false, first, at_hand, read_on).await;
    let filled = filled.unwrap_or_else(|never| match never {});
    assert_eq!(ids(&filled[0]), [0, 1]);
}

#[tokio::test]
async fn what_is_at_hand_is_taken_before_anything_is_read() {
    let gone = "g".repeat(9);
    let lists = [
        list("pppp"),
        list("gpgppp"),
        list(&format!("{gone}pp")),
        list("ppgg"),
    ];
    let known = Known::default();
    let (held, refills) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let at_hand = |at: usize| {
        held.borrow_mut().push(at);
        // Up to the sixth item.
        let list: &[Item] = &lists[at];
        let upto = list.len().min(6);
        Some(Candidates {
            items: list[3..upto].to_vec(),
            more: upto < list.len(),
        })
    };
    let more = |wanted: Vec<Refill<Item>>| {
        let behind = wanted.iter().map(|refill| (refill.list, refill.after.0));
        refills.borrow_mut().push(behind.collect::<Vec<_>>());
        let read = |refill: &Refill<Item>| {
            let count = refill.count as usize;
            read(&lists[refill.list], Some(&refill.after), count)
        };
        ready(Ok::<_, Infallible>(wanted.iter().map(read).collect()))
    };
    let first = lists.iter().map(|list| read(list, None, 3)).collect();
    let filled = fill(&known, 2, true, first, at_hand, more).await;
    let filled = filled.unwrap_or_else(|never| match never {});
    let shown: Vec<_> = filled.iter().map(ids).collect();
    assert_eq!(shown, [vec![0, 1], vec![1, 3], vec![9, 10], vec![0, 1]]);
    let next: Vec<_> = filled.iter().map(|page| page.next.as_ref()).collect();
    let next: Vec<_> = next.iter().map(|next| next.map(|item| item.0)).collect();
    assert_eq!(next, [Some(1), Some(3), None, None]);
    let open = "only of those that are short, or may be the last";
    assert_eq!(held.into_inner(), [1, 2, 3], "{open}");
    assert_eq!(refills.into_inner(), [[(2, 5)]], "behind what was at hand");
    assert_eq!(*known.asked.lock().unwrap(), [3 * 4, 3 + 3 + 1, 5]);
}

#[tokio::test]
async fn a_list_that_cannot_be_read_on_now_is_a_shorter_page_with_a_next() {
    let more = |wanted: Vec<Refill<Item>>| {
        let nothing = |_: &_| Candidates {
            items: Vec::new(),
            more: true,
        };
        ready(Ok::<_, Infallible>(wanted.iter().map(nothing).collect()))
    };
    let first = vec![read(&list("pgpp"), None, 3), read(&list("gggp"), None, 3)];
    let filled = fill(&Known::default(), 3, true, first, |_| None, more).await;
    let filled = filled.unwrap_or_else(|never| match never {});
    let next = |page: &Filled<Item>| page.next.as_ref().map(|item| item.0);
    assert_eq!((ids(&filled[0]), next(&filled[0])), (vec![0, 2], Some(2)));
    assert_eq!((ids(&filled[1]), next(&filled[1])), (vec![], Some(2)));
}

#[tokio::test]
async fn a_list_that_cannot_be_read_on_is_an_error() {
    let calls = Cell::new(0);
    let more = |_: Vec<Refill<Item>>| {
        calls.set(calls.get() + 1);
        ready(Err::<Vec<Candidates<Item>>, _>("away"))
    };
    let first = vec![read(&list("pgp"), None, 2)];
    let filled = fill(&Known::default(), 2, true, first, |_| None, more).await;
    assert_eq!(filled.err(), Some("away"));
    assert_eq!(calls.get(), 1);
    let first = vec![read(&list("ppggp"), None, 3)];
    let filled = fill(&Known::default(), 2, true, first, |_| None, more).await;
    let filled = filled.expect("a full page, though it is not known whether it is the last");
    assert_eq!(ids(&filled[0]), [0, 1]);
    assert_eq!(filled[0].next.as_ref().map(|item| item.0), Some(2));
    assert_eq!(calls.get(), 2);
}
