#!/usr/bin/env bash
# The main job on the bundled photographs, from image files to sampled pictures. Results in demo/. Called by `make demo`;
# run again, it repeats everything in a few minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tokengrid=target/release/tokengrid
photos=data/photos
out=demo
started=$SECONDS

step() {
    printf '\n== %s\n' "$*"
}

rm -rf "$out"
mkdir -p "$out"

step "1/5  Tokenize: $(find "$photos" -name '*.JPEG' | wc -l) photographs in $(find "$photos" -mindepth 1 -maxdepth 1 -type d | wc -l) class folders, once, with the built-in tokenizer"
"$tokengrid" tokenize "$photos" --tokenizer tiny --out "$out/cache"

step "2/5  The cache: verified, and what is in it"
"$tokengrid" cache verify "$out/cache"
"$tokengrid" cache info "$out/cache"

step "3/5  Reconstructions: photograph -> 256 tokens (576 bytes) -> picture"
"$tokengrid" reconstruct data/unseen/*.jpg "$photos"/n02123045/*_0.JPEG "$photos"/n07920052/*_1.JPEG \
    "$photos"/n09818022/*_0.JPEG "$photos"/n02691156/*_0.JPEG "$photos"/n09193705/*_0.JPEG \
    --tokenizer tiny --out "$out/reconstructions"
cp "$out/reconstructions/reconstructions.png" "$out/reconstructions.png"

step "4/5  Train a small autoregressive model, straight from the cache"
"$tokengrid" train ar --config scripts/demo.toml --cache "$out/cache" --out "$out/run"
"$tokengrid" train plot "$out/run" --out "$out/loss.png"

step "5/5  Sample: three images of every class, with guidance"
"$tokengrid" sample --checkpoint "$out/run" --tokenizer tiny --classes all --num-per-class 3 \
    --cfg-scale 1.5,1.2 --top-p 0.95,0.95 --seed 1 --batch-size 18 --out "$out/samples"
cp "$out/samples/grid.png" "$out/samples.png"

cat <<MSG

== Done in $((SECONDS - started)) s. Look at
   $out/reconstructions.png   pairs: what the tokenizer saw, what its tokens say
   $out/loss.png              the loss of the autoregressive model
   $out/samples.png           three pictures of every class, made up by the model

   What next:
   $tokengrid ingest YOUR_IMAGES                        is the data set sound?
   $tokengrid tokenize YOUR_IMAGES --tokenizer imagenet_256_L.ckpt --out cache
   $tokengrid train ar --set model.preset=B --cache cache --out runs/B
   $tokengrid --help
MSG
