//! What listens on the workload's port, and gives the answers that a test has set.

use crate::http::{self, Response};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Method and path → code and answer. Any other path is answered with 404.
pub type Answers = BTreeMap<String, (u16, Value)>;

/// Listens until it is dropped.
pub struct Workload {
    pub requests: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

const ADDRESS: &str = "127.0.0.1:8080";

impl Workload {
    /// With a token, whoever does not bring it is refused, as windrow refuses them from everywhere.
    pub fn new(answers: Answers, token: Option<String>) -> Workload {
        let wanted = token.map(|token| format!("Bearer {token}"));
        let listener = TcpListener::bind(ADDRESS).expect("a network of our own");
        let mut workload = Workload {
            requests: Arc::default(),
            over: Arc::default(),
            thread: None,
        };
        let (requests, over) = (Arc::clone(&workload.requests), Arc::clone(&workload.over));
        workload.thread = Some(std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (answers, requests) = (answers.clone(), Arc::clone(&requests));
                let wanted = wanted.clone();
                std::thread::spawn(move || {
                    let _ = http::serve(&stream, &stream, |request, _| {
                        let line = format!("{} {}", request.method, request.path);
                        requests.lock().expect("not poisoned").push(line.clone());
                        let absent = (404, serde_json::json!({"error": "not here"}));
                        let refused = (401, serde_json::json!({"error": "no token"}));
                        let brought = request.headers.get("authorization");
                        let (code, body) = if wanted.is_some() && brought != wanted.as_ref() {
                            &refused
                        } else {
                            answers.get(&line).unwrap_or(&absent)
                        };
                        Some(Response::json(*code, body))
                    });
                });
            }
        }));
        workload
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // The listener's thread looks at its flag when somebody connects, and then closes the port.
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(ADDRESS);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
