//! Recipes as users write them, as caches record them, and what comes out of them.

use tokengrid_ingest::{Factor, Orientation, Recipe, Resize, RgbImage, View, ViewError, Views, views_of};

/// An image whose pixels say where they are.
fn image(width: u32, height: u32) -> RgbImage {
    let pixel = |i: u32| [(i % width) as u8, (i / width) as u8, (i % 7) as u8];
    RgbImage { width, height, pixels: (0..width * height).flat_map(pixel).collect(), warnings: 0 }
}

fn views(image: &RgbImage, key: &str, views: &str, size: u32, seed: u64) -> Vec<View> {
    let recipe = Recipe { size, views: views.parse().expect(views), seed, ..Recipe::default() };
    let views = views_of(image, key, &recipe).expect("views");
    assert_eq!(views.len(), recipe.num_views() as usize);
    assert!(
        views.iter().enumerate().all(|(i, v)| v.view as usize == i && v.pixels.len() == (size * size * 3) as usize)
    );
    views
}

/// The crop that a view says it is, out of an image that is not resized.
fn expected_pixels(image: &RgbImage, view: &View, size: u32) -> Vec<u8> {
    let pixel = |x: u32, y: u32| {
        let x = if view.flip { size - 1 - x } else { x } + view.crop_x as u32;
        let at = ((y + view.crop_y as u32) * image.width + x) as usize * 3;
        image.pixels[at..at + 3].to_vec()
    };
    (0..size * size).flat_map(|i| pixel(i % size, i / size)).collect()
}

#[test]
fn views_are_read_and_written_in_the_same_words() {
    for text in
        ["center", "center+flip", "random-crop:1", "random-crop:12", "ten-crop", "ten-crop:1.1", "ten-crop:1.05"]
    {
        assert_eq!(text.parse::<Views>().expect(text).to_string(), text);
    }
    assert_eq!("ten-crop:1.0".parse::<Views>().expect("views").to_string(), "ten-crop");
    assert_eq!("ten-crop:1.10".parse::<Views>().expect("views").to_string(), "ten-crop:1.1");
}

#[test]
fn what_departs_from_the_reference_is_recorded() {
    let recipe = Recipe { orientation: "apply".parse().expect("apply"), ..Recipe::default() };
    let line = r#"{"size":256,"views":"center","seed":0,"resize":"pillow-bilinear","orientation":"apply"}"#;
    assert_eq!(recipe.to_json(), line);
    assert_eq!(Recipe::from_json(line).expect("recipe"), recipe);
    assert_eq!(("exact".parse().ok(), "ignore".parse().ok()), (Some(Resize::default()), Some(Orientation::default())));
    let (resize, orientation) = ("lanczos".parse::<Resize>(), "auto".parse::<Orientation>());
    assert_eq!(resize.expect_err("unknown").to_string(), "resampler 'lanczos'; expected exact or adm");
    assert_eq!(orientation.expect_err("unknown").to_string(), "EXIF orientation 'auto'; expected ignore or apply");
}

#[test]
fn the_resampler_of_earlier_versions_is_refused_and_not_taken_for_the_exact_one() {
    let line = r#"{"size":256,"views":"center","seed":0,"resize":"fast-bilinear","orientation":"ignore"}"#;
    for message in [
        "fast".parse::<Resize>().expect_err("removed").to_string(),
        Recipe::from_json(line).expect_err("removed").to_string(),
    ] {
        assert!(message.contains("was removed") && message.contains("exact, the default"), "{message}");
    }
}

#[test]
fn words_that_mean_nothing_are_refused_with_the_ones_that_do() {
    let wrong = [
        "",
        "centre",
        "Center",
        "random-crop",
        "random-crop:",
        "random-crop:0",
        "random-crop:-1",
        "random-crop:99999999999",
    ];
    let wrong_factors = [
        "ten-crop:",
        "ten-crop:0.9",
        "ten-crop:11",
        "ten-crop:1.0001",
        "ten-crop:NaN",
        "ten-crop:1.1x",
        "ten-crop:1e1",
    ];
    for text in wrong.iter().chain(&wrong_factors) {
        let message = text.parse::<Views>().expect_err(text).to_string();
        assert!(
            message.contains(text) && message.contains("center+flip") && message.contains("ten-crop:F"),
            "{message}"
        );
    }
}

#[test]
fn the_canonical_line_never_changes() {
    // Recorded in caches: a change here would make every existing cache a stranger.
    let line = |recipe: Recipe| recipe.to_string();
    assert_eq!(
        line(Recipe::default()),
        r#"{"size":256,"views":"center","seed":0,"resize":"pillow-bilinear","orientation":"ignore"}"#
    );
    let crops = Recipe { size: 128, views: Views::RandomCrop(3), seed: 9, ..Recipe::default() };
    assert_eq!(
        line(crops),
        r#"{"size":128,"views":"random-crop:3","seed":9,"resize":"pillow-bilinear","orientation":"ignore"}"#
    );
    assert_eq!(Recipe::from_json(&line(crops)).expect("recipe"), crops);
    assert_eq!(
        line(Recipe { seed: 9, ..Recipe::default() }),
        line(Recipe::default()),
        "a seed without effect does not count"
    );
}

#[test]
fn a_recorded_recipe_is_checked_when_it_is_read() {
    for text in [
        "",
        "{}",
        r#"{"size":0,"views":"center"}"#,
        r#"{"size":256,"views":"middle"}"#,
        r#"{"size":256,"views":"center","x":1}"#,
    ] {
        assert!(Recipe::from_json(text).is_err(), "{text}");
    }
}

#[test]
fn center_flip_is_the_center_and_its_mirror_image() {
    let image = image(7, 4);
    let both = views(&image, "k", "center+flip", 4, 0);
    assert_eq!([both[0].crop_x, both[1].crop_x], [2, 2], "round(1.5) is 2, and the mirrored view is of the same crop");
    assert_eq!([both[0].flip, both[1].flip], [false, true]);
    assert_eq!(both[0].pixels, views(&image, "k", "center", 4, 0)[0].pixels);
    both.iter().for_each(|v| assert_eq!(v.pixels, expected_pixels(&image, v, 4)));
}

#[test]
fn every_view_is_the_crop_that_it_says_it_is() {
    // The shorter side is the size already, so nothing is resized.
    for (width, height) in [(40, 16), (16, 40), (16, 16), (250, 16)] {
        let image = image(width, height);
        for recipe in ["random-crop:9", "ten-crop", "random-crop:1"] {
            for view in views(&image, "a/b.jpg", recipe, 16, 3) {
                assert_eq!(
                    view.pixels,
                    expected_pixels(&image, &view, 16),
                    "{width}x{height} {recipe} view {}",
                    view.view
                );
            }
        }
    }
}

#[test]
fn crops_of_a_resized_image_are_cut_from_one_and_the_same_image() {
    // Many crops share one resized rectangle, few are resized each by itself: the pixels must be the same.
    let image = image(90, 61);
    let many = views(&image, "k", "random-crop:40", 20, 5);
    let few = views(&image, "k", "random-crop:1", 20, 5);
    assert_eq!(many[0], few[0]);
    let centers = [&views(&image, "k", "ten-crop", 20, 0)[4], &views(&image, "k", "center", 20, 0)[0]];
    assert_eq!(centers[0].pixels, centers[1].pixels);
}

#[test]
fn ten_crop_has_the_corners_and_the_center_then_those_of_the_mirror_image() {
    let image = image(30, 20);
    let ten = views(&image, "k", "ten-crop", 20, 0);
    let places: Vec<_> = ten.iter().map(|v| (v.crop_x, v.crop_y, v.flip)).collect();
    let plain = [(0, 0), (10, 0), (0, 0), (10, 0), (5, 0)].map(|(x, y)| (x, y, false));
    let mirrored = [(10, 0), (0, 0), (10, 0), (0, 0), (5, 0)].map(|(x, y)| (x, y, true));
    assert_eq!(places, [plain, mirrored].concat());
}

#[test]
fn ten_crop_resizes_by_its_factor_first() {
    let recipe = Recipe { size: 256, views: "ten-crop:1.1".parse().expect("views"), ..Recipe::default() };
    assert_eq!(recipe.shorter_side(), 281, "int(256 * 1.1)");
    assert_eq!(Factor::from_thousandths(1050).expect("factor").scale(128), 134, "int(128 * 1.05)");
    let corner = &views(&image(50, 50), "k", "ten-crop:1.5", 10, 0)[3];
    assert_eq!((corner.crop_x, corner.crop_y), (5, 5));
}

/// A recipe of ADM's preprocessing.
fn adm(size: u32, views: &str) -> Recipe {
    Recipe { size, views: views.parse().expect(views), resize: Resize::Adm, ..Recipe::default() }
}

#[test]
fn adms_recipe_is_another_one_and_cuts_crops_from_a_square() {
    let recipe = adm(16, "ten-crop:1.5");
    let line = r#"{"size":16,"views":"ten-crop:1.5","seed":0,"resize":"adm","orientation":"ignore"}"#;
    assert_eq!((recipe.to_json(), Recipe::from_json(line).expect("recipe")), (line.into(), recipe));
    // 24 rows already, so nothing is resized; the square of 24 begins at floor(17 / 2).
    let image = image(41, 24);
    assert_eq!(recipe.resized_size(41, 24), Some((41, 24)));
    let ten = views_of(&image, "k", &recipe).expect("views");
    let places: Vec<_> = ten.iter().map(|v| (v.crop_x, v.crop_y, v.flip)).collect();
    let plain = [(8, 0), (16, 0), (8, 8), (16, 8), (12, 4)].map(|(x, y)| (x, y, false));
    let mirrored = [(16, 0), (8, 0), (16, 8), (8, 8), (12, 4)].map(|(x, y)| (x, y, true));
    assert_eq!(places, [plain, mirrored].concat());
    ten.iter().for_each(|view| assert_eq!(view.pixels, expected_pixels(&image, view, 16)));
    // The centre lies at floor(n / 2), and not at Python's round, as torchvision's does.
    let center = |recipe: &Recipe| views_of(&image, "k", recipe).expect("views")[0].crop_x;
    assert_eq!((center(&adm(24, "center")), center(&Recipe { size: 24, ..Recipe::default() })), (8, 8));
    let odd = |recipe: &Recipe| views_of(&self::image(27, 24), "k", recipe).expect("views")[0].crop_x;
    assert_eq!((odd(&adm(24, "center")), odd(&Recipe { size: 24, ..Recipe::default() })), (1, 2));
}

#[test]
fn adms_sizes_are_rounded_as_python_rounds() {
    assert_eq!(adm(75, "center").resized_size(301, 407), Some((75, 101)), "halved twice, and each time rounded down");
    assert_eq!(adm(75, "center").resized_size(100, 134), Some((75, 100)), "100.5 to the even number");
    assert_eq!(adm(75, "center").resized_size(100, 130), Some((75, 98)), "97.5 to the even number");
    assert_eq!(adm(256, "center").resized_size(500, 375), Some((341, 256)));
    assert_eq!(adm(128, "ten-crop:1.1").resized_size(500, 375), Some((187, 140)));
    assert_eq!(adm(16, "center").resized_size(0, 5), None);
    assert_eq!(adm(16, "center").resized_size(1, u32::MAX), None);
}

#[test]
fn random_crops_of_adms_recipe_reach_all_of_the_image() {
    let recipe = adm(16, "random-crop:40");
    let image = image(200, 35);
    let views = views_of(&image, "k", &recipe).expect("views");
    let (width, _) = recipe.resized_size(200, 35).expect("size");
    assert!(views.iter().any(|view| view.crop_x < 16) && views.iter().any(|view| view.crop_x as u32 > width - 32));
}

#[test]
fn random_crops_depend_on_seed_key_and_view_only() {
    let image = image(200, 16);
    let places = |key: &str, seed: u64| {
        views(&image, key, "random-crop:20", 16, seed).iter().map(|v| v.crop_x).collect::<Vec<_>>()
    };
    let first = places("a.jpg", 1);
    assert_eq!(first, places("a.jpg", 1));
    assert_ne!(first, places("b.jpg", 1));
    assert_ne!(first, places("a.jpg", 2));
    assert!(first.iter().all(|x| (0..=184).contains(x)));
    assert!(first.windows(2).any(|w| w[0] != w[1]), "views differ");
}

#[test]
fn an_impossible_image_is_an_error_not_a_panic() {
    let recipe = Recipe::default();
    let inconsistent = RgbImage { width: 10, height: 10, pixels: vec![0; 5], warnings: 0 };
    assert!(matches!(views_of(&inconsistent, "k", &recipe), Err(ViewError::Inconsistent { .. })));
    assert!(matches!(views_of(&RgbImage::default(), "k", &recipe), Err(ViewError::Inconsistent { .. })));
    let thin = RgbImage { width: 1, height: 9_000_000, pixels: vec![0; 27_000_000], warnings: 0 };
    assert!(matches!(views_of(&thin, "k", &recipe), Err(ViewError::TooLong { .. })));
    let none = Recipe { views: Views::RandomCrop(0), ..recipe };
    assert!(matches!(views_of(&image(3, 3), "k", &none), Err(ViewError::Recipe { .. })));
}

#[test]
fn a_very_long_image_costs_only_its_crop() {
    // 1 x 100,000 pixels become 256 x 25,600,000: 19 gigabytes, of which the crop is a sliver.
    let thin = RgbImage { width: 1, height: 100_000, pixels: vec![9; 300_000], warnings: 0 };
    let ten = views(&thin, "k", "ten-crop", 256, 0);
    assert!(ten.iter().all(|v| v.pixels.iter().all(|&p| p == 9)));
    assert_eq!(ten[2].crop_y, 25_600_000 - 256);
}
