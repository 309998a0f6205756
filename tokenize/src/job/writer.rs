//! The writer's part of the job: images into the cache, in order.

use super::EncodedImage;
use crate::TokenizeError;
use crossbeam::channel::Receiver;
use tokengrid_cache::{CacheError, CacheWriter, Finished};
use tokengrid_ingest::{Source, Stage, StageCounters};

/// The writer's thread. `None`: the encoder stopped before its end; everything that arrived is durable.
pub(super) fn write(
    source: &Source,
    mut writer: CacheWriter,
    messages: Receiver<Message>,
    stages: &StageCounters,
) -> Result<Option<Finished>, TokenizeError> {
    for message in messages {
        match message {
            Message::Image(image) => stages.timed(Stage::Write, || write_image(source, &mut writer, &image))?,
            Message::Done => return Ok(Some(stages.timed(Stage::Write, || writer.finish())?)),
        }
    }
    writer.checkpoint()?;
    Ok(None)
}

fn write_image(source: &Source, writer: &mut CacheWriter, image: &EncodedImage) -> Result<(), CacheError> {
    let key = source.key(image.index);
    match &image.outcome {
        Ok(views) => {
            writer.push_image(image.index, &image.rows(key, views))?;
            writer.count_margins(&image.margins());
            Ok(())
        }
        Err(bad) => writer.quarantine(image.index, key, &bad.stage.to_string(), &bad.reason),
    }
}

/// From the encoder to the writer. Without [`Message::Done`] at its end, the job was stopped.
pub(super) enum Message {
    Image(EncodedImage),
    Done,
}
