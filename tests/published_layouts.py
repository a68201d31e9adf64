"""Small stand-ins for what others publish, file by file in the same layout: CelebA, CelebA-HQ, a DDPM; and two more.

`python tests/published_layouts.py FOLDER` makes these three. The others are a folder of class folders, and
Fashion-MNIST. The pictures are blurred discs, reddish for label 0 (female)
and bluish for label 1 (male), so that a tiny network can tell them apart.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

NAMES = """
5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair Blurry
Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male
Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks
Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace
Wearing_Necktie Young
"""
ATTRIBUTES = NAMES.split()


def face(rng: np.random.Generator, label: int, width: int, height: int) -> Image.Image:
    """A disc with eyes and a mouth, blurred, somewhere near the middle of a grey picture."""
    picture = Image.new("RGB", (width, height), tuple(rng.integers(90, 140, 3).tolist()))
    draw = ImageDraw.Draw(picture)
    x, y = (side * rng.uniform(0.4, 0.6) for side in (width, height))
    radius = width * rng.uniform(0.25, 0.4)
    strong, weak = int(rng.integers(190, 240)), int(rng.integers(60, 110))
    colour = (weak, weak, strong) if label else (strong, weak, weak)
    draw.ellipse((x - radius, y - 1.2 * radius, x + radius, y + 1.2 * radius), fill=colour)
    for eye in (x - radius / 2.5, x + radius / 2.5):
        draw.ellipse((eye - radius / 8, y - radius / 2, eye + radius / 8, y - radius / 4), fill=(30, 30, 30))
    draw.rectangle((x - radius / 3, y + radius / 2, x + radius / 3, y + radius / 1.7), fill=(120, 30, 40))
    return picture.filter(ImageFilter.GaussianBlur(width / 60))


def labels_with_both(rng: np.random.Generator, n: int) -> np.ndarray:
    """`n` labels 0 and 1 by chance, more of 0, with both among the first two."""
    labels = (rng.random(n) < 0.4).astype(int)
    labels[:2] = 0, 1
    return labels


def make_celeba(folder: str | Path, n: int = 96, seed: int = 0) -> Path:
    """CelebA's official layout: `n` JPEGs of 178×218, 60 % train, 20 % valid, 20 % test; only `Male` is not by chance.

    With the identity, box and landmark lists, which torchvision's own reader wants.
    """
    folder, rng = Path(folder), np.random.default_rng(seed)
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06d}.jpg" for i in range(1, n + 1)]
    sizes = (n * 6 // 10, n * 2 // 10, n - n * 6 // 10 - n * 2 // 10)
    male = np.concatenate([labels_with_both(rng, size) for size in sizes])
    values = rng.choice([-1, 1], (n, len(ATTRIBUTES)))
    values[:, ATTRIBUTES.index("Male")] = 2 * male - 1
    for name, label in zip(names, male, strict=True):
        face(rng, label, 178, 218).save(folder / "img_align_celeba" / name, quality=95)

    def write(file: str, head: list[str], rows: list[str]) -> None:
        lines = head + [f"{name}{row}" for name, row in zip(names, rows, strict=True)]
        (folder / file).write_text("\n".join(lines) + "\n")

    write("list_eval_partition.txt", [], [f" {split}" for split in np.repeat([0, 1, 2], sizes)])
    rows = ["".join(f" {value:2d}" for value in row) for row in values]
    write("list_attr_celeba.txt", [str(n), " ".join(ATTRIBUTES) + " "], rows)
    write("identity_CelebA.txt", [], [f" {person}" for person in rng.integers(1, 10178, n)])
    write("list_bbox_celeba.txt", [str(n), "image_id x_1 y_1 width height"], ["    95  71 226 313"] * n)
    points = " ".join(
        f"{part}_{axis}" for part in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"
    )
    write("list_landmarks_align_celeba.txt", [str(n), points], [" 69 109 106 113  77 142  73 152 108 154"] * n)
    return folder


def make_celebahq(folder: str | Path, n_train: int = 64, n_valid: int = 32, size: int = 64, seed: int = 0) -> Path:
    """The hub's layout of korexyz/celeba-hq-256x256: two train files and one of validation, in `data/`."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    folder, rng = Path(folder), np.random.default_rng(seed)
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["female", "male"])})
    for part, n, total in (("train", n_train, 2), ("validation", n_valid, 1)):
        labels = labels_with_both(rng, n)
        images = [face(rng, label, size, size) for label in labels]
        rows = Dataset.from_dict({"image": images, "label": labels}, features=features)
        for number in range(total):
            name = f"{part}-{number:05d}-of-{total:05d}-{rng.bytes(8).hex()}.parquet"
            (folder / "data").mkdir(parents=True, exist_ok=True)
            rows.shard(total, number, contiguous=True).to_parquet(folder / "data" / name)
    return folder


def make_folder(
    folder: str | Path,
    n: int = 24,
    size: tuple[int, int] = (40, 32),
    seed: int = 0,
    classes: tuple[str, ...] = ("blue", "red"),
) -> Path:
    """A folder for each class with `n` JPEGs and PNGs in all, by turns, of `size` (width, height)."""
    folder, rng = Path(folder), np.random.default_rng(seed)
    for i in range(n):
        name = classes[i % len(classes)]
        (folder / name).mkdir(parents=True, exist_ok=True)
        picture = face(rng, int(name == "blue"), *size)
        if i % len(classes) > 1:  # a third class is of grey pictures
            picture = picture.convert("L")
        picture.save(folder / name / f"{i:04d}.{('jpg', 'png')[i // len(classes) % 2]}")
    return folder


def make_mnist(root: str | Path, n: int = 30, name: str = "FashionMNIST", seed: int = 0) -> Path:
    """torchvision's layout of Fashion-MNIST below `root`, unpacked: `n` train images and half as many of test.

    Class i is a bar across 28×28 pixels whose place says which of the ten it is.
    """
    raw, rng = Path(root, name, "raw"), np.random.default_rng(seed)
    raw.mkdir(parents=True)
    for part, count in (("train", n), ("t10k", n // 2)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 + 2 * label : 6 + 2 * label] += 150
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = np.array([2048 + values.ndim, *values.shape], ">i4").tobytes()
            (raw / f"{part}-{kind}-ubyte").write_bytes(head + values.tobytes())
    return Path(root)


def make_published_ddpm(folder: str | Path, size: int = 16, timesteps: int = 8, seed: int = 0) -> Path:
    """The layout of google/ddpm-celebahq-256, all files side by side; a tiny U-Net with random weights."""
    import torch
    from diffusers import DDPMScheduler, UNet2DModel

    folder = Path(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DModel(
            sample_size=size,
            layers_per_block=1,
            block_out_channels=[8, 16],
            norm_num_groups=4,
            down_block_types=["DownBlock2D", "AttnDownBlock2D"],
            up_block_types=["AttnUpBlock2D", "UpBlock2D"],
        )
    unet.save_pretrained(folder, safe_serialization=True)
    DDPMScheduler(num_train_timesteps=timesteps, variance_type="fixed_small").save_pretrained(folder)
    parts = {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
    index = {"_class_name": "DDPMPipeline", "_diffusers_version": "0.1.1", **parts}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    return folder


if __name__ == "__main__":
    place = Path(sys.argv[1])
    for path in (
        make_celeba(place / "celeba"),
        make_celebahq(place / "celeba-hq-256x256"),
        make_published_ddpm(place / "ddpm-celebahq-256"),
    ):
        print(path)
