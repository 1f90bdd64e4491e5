"""Facts about ADE20K's scene parsing benchmark. Imports no torch."""

SPLITS = ("train", "val")
NUM_IMAGES = {"train": 20_210, "val": 2_000}
"""mmsegmentation, docs/en/user_guides/2_dataset_prepare.md; a label image each"""
NUM_CLASSES = 150
"""mmsegmentation, mmseg/datasets/ade.py"""
IGNORED = 255
"""what an unlabelled pixel is, once it is read"""

FOLDER = "ADEChallengeData2016"
"""what the archive unpacks to"""
URL = f"http://data.csail.mit.edu/places/ADEchallenge/{FOLDER}.zip"
SHA1 = "219e1696abb36c8ba3a3afe7fb2f4b4606a897c7"
"""of the archive, as public downloaders pin it"""

SPLIT_FOLDERS = {"train": ("training", "train"), "val": ("validation", "val")}
"""split -> the names that its folders may have, the official one first"""
CLASS_LIST = "objectInfo150.txt"
"""official class names, a row each after the header, tab separated, the name last"""
OWN_CLASSES = "classes.json"
"""what tells one's own data from the official ones"""

LAYOUT = "images/{training,validation}/*.jpg and annotations/{training,validation}/*.png"
OBTAIN = (
    f"get {URL} (sha1 {SHA1}; the full ADE20K releases are other data), unpack it and give the "
    f"folder {FOLDER}"
)
OWN = f"for your own data add {OWN_CLASSES} to the folder"
"""the other form of the data flag"""
