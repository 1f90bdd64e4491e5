"""Facts about the classification data sets. Imports no torch.

What no source confirms is called so; sizes are approximate, in units of 10^9 bytes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

WNID = re.compile(r"n\d{8}")
"""the name of a class folder of ImageNet"""


@dataclass(frozen=True)
class Archive:
    """A file of the official release."""

    name: str
    holds: tuple[tuple[str, ...], ...]
    """what it unpacks to, relative to the data folder; one of each tuple has to be there"""
    gigabytes: float | None = None
    md5: str = ""
    needed: bool = True
    """whether nothing works without it"""

    @property
    def described(self) -> str:
        """The name, with size and md5 where they are known."""
        size = "" if self.gigabytes is None else f"about {self.gigabytes:g} GB"
        if self.gigabytes is not None and self.gigabytes < 0.1:
            size = f"about {1000 * self.gigabytes:.2g} MB"
        known = ", ".join(part for part in (size, self.md5 and f"md5 {self.md5}") if part)
        return f"{self.name} ({known})" if known else self.name


@dataclass(frozen=True)
class DatasetFacts:
    """What the official release of a data set holds and how it lies on disk."""

    name: str
    """the task's name on the command line"""
    title: str
    num_classes: int
    """0 here and below: one's own data, with any number"""
    num_train: int
    """images"""
    num_val: int
    """images"""
    layout: str
    """the files expected below the data folder, in one line"""
    obtain: str
    """where to get it, in one line"""
    archives: tuple[Archive, ...] = ()
    origin: str = ""
    """where the archives are"""
    unpack: str = "unpack it in {folder}"
    """what to do with an archive that holds {name}"""
    gigabytes: float | None = None
    """disk that it takes, unpacked"""


@dataclass(frozen=True)
class RobustnessFacts:
    """The same for a data set that only tests, with classes of ImageNet-1K."""

    name: str
    title: str
    num_classes: int
    num_images: int
    """images in each of the `num_sets`"""
    layout: str
    obtain: str
    folder: str
    """what the archives unpack to; the data folder may be this one or the one around it"""
    num_sets: int = 1
    """versions of the same images"""
    archives: tuple[Archive, ...] = ()
    origin: str = ""
    unpack: str = "unpack it in {folder}"
    gigabytes: float | None = None


def get(archives: Sequence[Archive], origin: str, then: str = "unpack them into one folder") -> str:
    """How to obtain a data set, in one line."""
    *most, last = (archive.name for archive in archives if archive.needed)
    names = f"{', '.join(most)} and {last}" if most else last
    return f"get {names} from {origin} and {then}"


KAGGLE = "ILSVRC/Data/CLS-LOC"
"""where Kaggle's ImageNet has train/ and val/"""

IMAGENET_1K = DatasetFacts(
    name="imagenet1k",
    title="ImageNet-1K (ILSVRC 2012)",
    num_classes=1000,
    num_train=1_281_167,
    num_val=50_000,
    layout="train/<wnid>/*.JPEG and val/<wnid>/*.JPEG",
    obtain=(
        "get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from image-net.org (free account)"
        " and sort both into one folder per class"
    ),
    archives=(
        Archive(
            "ILSVRC2012_img_train.tar",
            (("train", f"{KAGGLE}/train"),),
            138,
            "1d675b47d978889d74fa0da5fadfb00e",
        ),
        Archive(
            "ILSVRC2012_img_val.tar",
            (("val", f"{KAGGLE}/val"),),
            6.3,
            "29b22e2961454d5413ddabcf34fc5622",
        ),
    ),
    origin="image-net.org (free account)",
    unpack="sort its images into one folder per class in {folder}/{name}",
    gigabytes=145,
)
"""Counts, layout, the two archives and their md5: torchvision datasets/imagenet.py. Sizes as the
download page used to state them, unconfirmed."""


def inaturalist(
    year: int, classes: int, train: int, val: int, archives: tuple[Archive, ...], gigabytes: float
) -> DatasetFacts:
    """A year of iNaturalist; the archives' names and places differ from year to year."""
    images = archives[0].holds[0][0]
    leaf = "<species>" if year == 2017 else "<category id>"
    origin = f"https://ml-inat-competition-datasets.s3.amazonaws.com/{year}/"
    return DatasetFacts(
        name=f"inat{year}",
        title=f"iNaturalist {year}",
        num_classes=classes,
        num_train=train,
        num_val=val,
        layout=f"{{train,val}}{year}.json and {images}/<supercategory>/{leaf}/*.jpg",
        obtain=get(archives, origin),
        archives=archives,
        origin=origin,
        gigabytes=gigabytes,
    )


def annotation_file(name: str, year: int) -> tuple[str, ...]:
    """Where an annotation file of iNaturalist may lie: an archive, or its owner, adds a folder."""
    return (name, f"train_val{year}/{name}")


INAT_2017 = inaturalist(
    2017,
    classes=5_089,
    train=579_184,
    val=95_986,
    archives=(
        Archive(
            "train_val_images.tar.gz",
            (("train_val_images",),),
            186,
            "7c784ea5e424efaec655bd392f87301f",
        ),
        Archive(
            "train_val2017.zip",
            (annotation_file("train2017.json", 2017), annotation_file("val2017.json", 2017)),
            0.026,
        ),
    ),
    gigabytes=190,
)
"""Counts, archives, sizes, md5: visipedia/inat_comp 2017/README.md. That the zip unpacks into
train_val2017/ is how several public readers expect it. Categories are not all species. Unpacked
size unconfirmed, here and for the other years: JPEG does not compress."""

INAT_2018 = inaturalist(
    2018,
    classes=8_142,
    train=437_513,
    val=24_426,
    archives=(
        Archive(
            "train_val2018.tar.gz", (("train_val2018",),), 120, "b1c6952ce38f31868cc50ea72d066cc3"
        ),
        Archive(
            "train2018.json.tar.gz",
            (annotation_file("train2018.json", 2018),),
            0.026,
            "bfa29d89d629cbf04d826a720c0a68b0",
        ),
        Archive(
            "val2018.json.tar.gz",
            (annotation_file("val2018.json", 2018),),
            md5="f2ed8bfe3e9901cdefceb4e53cd3775d",
        ),
        Archive(
            "categories.json.tar.gz", (annotation_file("categories.json", 2018),), needed=False
        ),
    ),
    gigabytes=122,
)
"""Counts, archives, sizes, md5: visipedia/inat_comp 2018/README.md, which gives the json of the
24,426 test images the size of the other one, hardly rightly: it is left out."""

INAT_2019 = inaturalist(
    2019,
    classes=1_010,
    train=265_213,
    val=3_030,
    archives=(
        Archive(
            "train_val2019.tar.gz", (("train_val2019",),), 74, "c60a6e2962c9b8ccbd458d12c8582644"
        ),
        Archive(
            "train2019.json.tar.gz",
            (annotation_file("train2019.json", 2019),),
            0.013,
            "b06a6683537867c0d5c7a45f407a306d",
        ),
        Archive(
            "val2019.json.tar.gz",
            (annotation_file("val2019.json", 2019),),
            0.000156,
            "5cc5509b0fe495f1c8c1362612448497",
        ),
        Archive(
            "categories.json.tar.gz", (annotation_file("categories.json", 2019),), needed=False
        ),
    ),
    gigabytes=75,
)
"""Archives, sizes, md5, classes, and 268,243 images of both splits together: visipedia/inat_comp
2019/README.md. Their division is three test images a class, as secondary sources have it."""

PLACES205_IMAGES = "data/vision/torralba/deeplearning/images256"
PLACES205_LISTS = ("trainvalsplit_places205", "")
"""folders where the lists may lie"""
PLACES205_ARCHIVES = (
    Archive("imagesPlaces205_resize.tar.gz", ((PLACES205_IMAGES,),), 140),
    Archive(
        "trainvalsplit_places205.tar.gz",
        tuple(
            (f"trainvalsplit_places205/{split}_places205.csv", f"{split}_places205.csv")
            for split in ("train", "val")
        ),
    ),
)
PLACES205 = DatasetFacts(
    name="places205",
    title="Places205",
    num_classes=205,
    num_train=2_448_873,
    num_val=20_500,
    layout=f"trainvalsplit_places205/{{train,val}}_places205.csv and {PLACES205_IMAGES}/*/*/*.jpg",
    obtain=get(PLACES205_ARCHIVES, "http://data.csail.mit.edu/places/places205/"),
    archives=PLACES205_ARCHIVES,
    origin="http://data.csail.mit.edu/places/places205/",
    gigabytes=140,
)
"""Counts: places.csail.mit.edu; names and folders as in mmselfsup's configs/benchmarks/
classification/_base_/datasets/places205.py. The size is one user's, unconfirmed."""

PLACES365_LISTS = ("", "filelist_places365-standard")
"""folders where the lists may lie"""
PLACES365_IMAGES = {
    "256": (("data_256_standard", "data_256"), ("val_256",)),
    "large": (("data_large_standard", "data_large"), ("val_large",)),
}
"""version -> names that the folders of the training and the test images may have: torchvision adds
"_standard" to the archive's own"""
PLACES365_ARCHIVES = (
    Archive(
        "filelist_places365-standard.tar",
        tuple(
            (name, f"filelist_places365-standard/{name}")
            for name in (
                "categories_places365.txt",
                "places365_train_standard.txt",
                "places365_val.txt",
            )
        ),
        md5="35a0585fee1fa656440f3ab298f8479c",
    ),
    Archive(
        "train_256_places365standard.tar",
        (PLACES365_IMAGES["256"][0] + PLACES365_IMAGES["large"][0],),
        24,
        "53ca1c756c3d1e7809517cc47c5561c5",
    ),
    Archive(
        "val_256.tar",
        (PLACES365_IMAGES["256"][1] + PLACES365_IMAGES["large"][1],),
        0.5,
        "e27b17d8d44f4af9a78502beb927f808",
    ),
)
PLACES365 = DatasetFacts(
    name="places365",
    title="Places365-Standard",
    num_classes=365,
    num_train=1_803_460,
    num_val=36_500,
    layout=(
        "categories_places365.txt, places365_{train_standard,val}.txt, "
        "data_256_standard/*/*/*.jpg and val_256/*.jpg"
    ),
    obtain=get(PLACES365_ARCHIVES, "http://data.csail.mit.edu/places/places365/"),
    archives=PLACES365_ARCHIVES,
    origin="http://data.csail.mit.edu/places/places365/",
    gigabytes=25,
)
"""Counts: zhoubolei/places_devkit README.md; archives, md5 and folders: torchvision
datasets/places365.py. Sizes unconfirmed. The large images, data_large_standard/ and val_large/ of
train_large_places365standard.tar and val_large.tar, take about 107 GB."""

FOLDER = DatasetFacts(
    name="folder",
    title="your own class folders",
    num_classes=0,
    num_train=0,
    num_val=0,
    layout="train/<class>/* and val/<class>/*, or <class>/* to be split",
    obtain="sort your images into one folder per class, the same names in train/ and val/",
)
"""Any images; never the official data set of a table."""

DATASETS = {
    facts.name: facts
    for facts in (
        IMAGENET_1K,
        INAT_2017,
        INAT_2018,
        INAT_2019,
        PLACES205,
        PLACES365,
        FOLDER,
    )
}
"""task name -> data set"""

CORRUPTIONS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
"""archive -> corruptions in it, in the order of hendrycks/robustness; the four of extra.tar are not
part of the benchmark"""
SEVERITIES = (1, 2, 3, 4, 5)

HENDRYCKS = "https://people.eecs.berkeley.edu/~hendrycks/"

IMAGENET_A_ARCHIVES = (Archive("imagenet-a.tar", (), 0.7, "c3e55429088dc681f30d81f4726b6595"),)
IMAGENET_A = RobustnessFacts(
    name="imagenet_a",
    title="ImageNet-A",
    num_classes=200,
    num_images=7_500,
    layout="<wnid>/*.jpg",
    obtain=get(IMAGENET_A_ARCHIVES, HENDRYCKS, "unpack it"),
    folder="imagenet-a",
    archives=IMAGENET_A_ARCHIVES,
    origin=HENDRYCKS,
    gigabytes=0.7,
)
"""Address: hendrycks/natural-adv-examples README.md; md5 as public loaders pin it; counts: arXiv
1907.07174. Size unconfirmed."""

IMAGENET_R_ARCHIVES = (Archive("imagenet-r.tar", (), 2.2, "a61312130a589d0ca1a8fca1f2bd3337"),)
IMAGENET_R = RobustnessFacts(
    name="imagenet_r",
    title="ImageNet-R",
    num_classes=200,
    num_images=30_000,
    layout="<wnid>/*.jpg",
    obtain=get(IMAGENET_R_ARCHIVES, HENDRYCKS, "unpack it"),
    folder="imagenet-r",
    archives=IMAGENET_R_ARCHIVES,
    origin=HENDRYCKS,
    gigabytes=2.2,
)
"""Address and counts: hendrycks/imagenet-r README.md; md5 as public loaders pin it; size: a copy
of the archive elsewhere."""

SKETCH = "the link in github.com/HaohanWang/ImageNet-Sketch"
IMAGENET_SKETCH_ARCHIVES = (Archive("ImageNet-Sketch.zip", (), 7.8),)
IMAGENET_SKETCH = RobustnessFacts(
    name="imagenet_sketch",
    title="ImageNet-Sketch",
    num_classes=1000,
    num_images=50_889,
    layout="<wnid>/*.JPEG",
    obtain=get(IMAGENET_SKETCH_ARCHIVES, SKETCH, "unpack it"),
    folder="sketch",
    archives=IMAGENET_SKETCH_ARCHIVES,
    origin=SKETCH,
    gigabytes=8.4,
)
"""Sizes: HaohanWang/ImageNet-Sketch README.md, which speaks of 50,000 images; the release holds
50,889 by the count of public loaders."""

IMAGENET_C_ARCHIVES = tuple(
    Archive(f"{group}.tar", tuple((each, f"{group}/{each}") for each in names), size, md5)
    for (group, names), size, md5 in zip(
        CORRUPTIONS.items(),
        (22.2, 7.1, 12.5, 7.6),
        (
            "e80562d7f6c3f8834afb1ecf27252745",
            "2d8e81fdd8e07fef67b9334fa635e45c",
            "33ffea4db4d93fe4a428c40a6ce0c25d",
            "89157860d7b10d5797849337ca2e5c03",
        ),
        strict=True,
    )
)
IMAGENET_C = RobustnessFacts(
    name="imagenet_c",
    title="ImageNet-C",
    num_classes=1000,
    num_images=50_000,
    num_sets=75,
    layout="<corruption>/<severity>/<wnid>/*.JPEG",
    obtain=get(IMAGENET_C_ARCHIVES, "https://zenodo.org/records/2235448"),
    folder="imagenet-c",
    archives=IMAGENET_C_ARCHIVES,
    origin="https://zenodo.org/records/2235448",
    gigabytes=50,
)
"""Address: hendrycks/robustness README.md; md5 as public loaders pin them; sizes unconfirmed. 15
corruptions of ImageNet-1K's 50,000 test images in five severities."""

ROBUSTNESS = {facts.name: facts for facts in (IMAGENET_A, IMAGENET_R, IMAGENET_SKETCH, IMAGENET_C)}
"""name -> data set that tests a model of ImageNet-1K's classes"""
