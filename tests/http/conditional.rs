//! Conditional answers.

use hyper::body::Bytes;

use crate::support::client::{Answer, list_path};
use crate::support::uses::body_of;
use crate::support::{Server, TestDb, Use, both};

both!(
    a_client_that_knows_the_page_hears_304,
    the_tag_changes_with_the_page_and_is_the_same_on_every_replica,
    head_is_get_without_the_body,
);

async fn a_client_that_knows_the_page_hears_304(db: TestDb) {
    let server = Server::start(&db).await;
    server
        .public
        .post("/v1/runs", &body_of(&[Use::new("w", "p", 0)]))
        .await
        .expect(200);
    let path = list_path("w", None);
    let first = server.public.get(&path).await.expect(200);
    assert_eq!(first.header("cache-control"), Some("private, no-cache"));
    let tag = first.header("etag").expect("a tag").to_owned();
    let opaque = tag.strip_prefix("W/").expect("a weak tag").to_owned();
    let ask = async |headers: &[(&str, &str)]| server.public.get_with(&path, headers).await;
    let list = format!("W/\"other\", {tag} , \"more\"");
    for known in [tag.as_str(), &opaque, "*", &list] {
        let answer = ask(&[("if-none-match", known)]).await.expect(304);
        assert!(answer.body.is_empty());
        assert_eq!(answer.header("etag"), Some(tag.as_str()), "for {known}");
        assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
        assert!(answer.header("x-request-id").is_some());
        assert_eq!(answer.header("content-type"), None);
    }
    ask(&[("if-none-match", "\"other\""), ("if-none-match", &tag)])
        .await
        .expect(304);
    let cut = &tag[..tag.len() - 1];
    let longer = format!("x{tag}");
    for unknown in ["\"other\"", "", cut, &longer, "W/*"] {
        let answer = ask(&[("if-none-match", unknown)]).await.expect(200);
        assert_eq!(answer.body, first.body, "for {unknown}");
    }
}

async fn the_tag_changes_with_the_page_and_is_the_same_on_every_replica(db: TestDb) {
    let (one, other) = (Server::start(&db).await, Server::start(&db).await);
    let path = list_path("w", Some("u"));
    let tag = |answer: Answer| answer.expect(200).header("etag").expect("a tag").to_owned();
    let mut seen = vec![tag(one.public.get(&path).await)];
    let steps = [
        Use::new("w", "p", 0).by("u"),
        Use::new("w", "q", 0).by("u"),
        Use::new("w", "p", 1).by("u"),
        Use::new("w", "p", 1).by("u").run("r"),
    ];
    for step in steps {
        let written = one.public.post("/v1/runs", &body_of(&[step])).await;
        let written = written.expect(200);
        let token = written.header("recents-session-token").expect("a token");
        let session = [("recents-session-token", token)];
        let now = tag(other.public.get_with(&path, &session).await);
        assert_eq!(tag(one.public.get(&path).await), now);
        // Of two, nobody knows which one is meant.
        let twice = [session[0], session[0]];
        other.public.get_with(&path, &twice).await.expect(400);
        assert!(!seen.contains(&now), "the page changed, its tag did not");
        seen.push(now);
    }
}

async fn head_is_get_without_the_body(db: TestDb) {
    let server = Server::start(&db).await;
    server
        .public
        .post("/v1/runs", &body_of(&[Use::new("w", "p", 0)]))
        .await
        .expect(200);
    let path = list_path("w", None);
    let get = server.public.get(&path).await.expect(200);
    let head = async |headers: &[(&str, &str)]| {
        server
            .public
            .send("HEAD", &path, headers, Bytes::new())
            .await
    };
    let answer = head(&[]).await.expect(200);
    assert!(answer.body.is_empty());
    for name in ["etag", "content-type", "cache-control", "content-length"] {
        assert_eq!(answer.header(name), get.header(name), "{name}");
    }
    let tag = get.header("etag").expect("a tag");
    head(&[("if-none-match", tag)]).await.expect(304);
}
