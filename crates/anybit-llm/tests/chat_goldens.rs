//! Chat templates against Python's Jinja, and the sample model's own template.

mod common;

use std::fs;

use anybit_llm::{ChatError, ChatTemplate, Message, Specials, Tokenizer};
use common::{Fields, data, sample_model, text};
use serde_json::Value;

fn messages(json: &Value) -> Vec<Message> {
    let part = |message: &Value, key: &str| message[key].as_str().unwrap().to_owned();
    let list = json["messages"].as_array().unwrap().iter();
    list.map(|message| Message::new(part(message, "role"), part(message, "content")))
        .collect()
}

#[test]
fn prompts_are_those_of_python() {
    let json = fs::read_to_string(data("chat/goldens.json")).unwrap();
    let goldens: Value = serde_json::from_str(&json).unwrap();
    let goldens = goldens.as_array().unwrap();
    assert_eq!(goldens.len(), 5 * 6 * 2);
    for golden in goldens {
        let name = golden["template"].as_str().unwrap();
        let source = fs::read_to_string(data("chat").join(name)).unwrap();
        let template = ChatTemplate::new(&source, Some("<s>"), Some("</s>")).unwrap();
        let messages = messages(golden);
        let prompt = golden["add_generation_prompt"].as_bool().unwrap();
        let rendered = template.render(&messages, prompt);
        match (rendered, golden["text"].as_str()) {
            (Ok(text), Some(expected)) => assert_eq!(text, expected, "{name}, {messages:?}"),
            (Err(ChatError::Refused { .. }), None) => (),
            (other, expected) => panic!("{name}, {messages:?}: {other:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn the_sample_model_has_a_template() {
    let Some(file) = sample_model("the_sample_model_has_a_template") else {
        return;
    };
    let tokenizer = Tokenizer::from_gguf(file.metadata()).unwrap();
    let template = ChatTemplate::from_gguf(file.metadata(), &tokenizer).unwrap();
    let prompt = template
        .render(&[Message::new("user", "Hello!")], true)
        .unwrap();
    assert_eq!(
        prompt,
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n"
    );
    let ids = tokenizer.encode_sequence(&prompt, Specials::Parse).unwrap();
    assert_eq!(ids.iter().filter(|&&id| id == 1).count(), 3);
    assert_eq!(ids.iter().filter(|&&id| tokenizer.is_end(id)).count(), 2);
}

#[test]
fn a_file_without_a_template_says_so() {
    let fields = Fields::of("byte-level.gguf");
    let tokenizer = fields.tokenizer().unwrap();
    let template = |fields: &Fields| {
        let file = anybit_import::gguf::GgufFile::from_bytes(fields.bytes()).unwrap();
        ChatTemplate::from_gguf(file.metadata(), &tokenizer)
            .map(|template| template.render(&[], false).unwrap())
    };
    assert!(matches!(template(&fields), Err(ChatError::Missing)));
    let wrong = fields.clone().set("chat_template", common::integers([1]));
    assert!(matches!(template(&wrong), Err(ChatError::Metadata(_))));
    let broken = fields.clone().set("chat_template", text("{% if %}"));
    assert!(matches!(template(&broken), Err(ChatError::Syntax(_))));
    let right = fields.set("chat_template", text("{{ bos_token }}{{ eos_token }}"));
    assert_eq!(template(&right).unwrap(), "<|im_start|><|im_end|>");
}
