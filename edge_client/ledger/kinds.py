"""What each kind of message that a site sends holds, and what it can and cannot say about a patient."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KindWords:
    """In plain words, for people who protect data: what it holds, what that says of patients."""

    holds: str
    says: str


_NOTHING = "Nothing: no image, label or number of patients has a part in it."
_OBJECT_PART = (
    "As the message that it is a part of: an update, a masked update, or a proof of signed messages of the "
    "aggregator."
)
_MASKED = (
    "By itself nothing: it is random numbers to whoever does not hold the other sites' parts. Together they "
    "give the sum of a round's updates, which can say of all sites together what an update can say of one."
)

SENT: dict[str, KindWords] = {
    "Update": KindWords(
        "What one round of training changed of the shared head, compressed, or statistics of the training "
        "images by class, as the federation's method has it; how many training images are in it (under "
        "differential privacy a noisy number).",
        "No image, name or identifier is in it. But it is computed from images, and who has it and knows or "
        "guesses an image can try to tell whether that image was used (membership inference); where few "
        "images are in it, embeddings can be read off or images approximated. Differential privacy bounds "
        "this for every image or patient, floors keep the smallest groups back, and sums under masks show "
        "the coordinator the sum only. Without these nothing is guaranteed; what attacks find is measured.",
    ),
    "Block": KindWords("A part of something that does not fit into one message.", _OBJECT_PART),
    "Join": KindWords(
        "That this site takes part or why not: its public key, digest of the bundle, version of the "
        "software, newest version of the head, number of training images (under differential privacy a "
        "noisy one, where updates are summed under masks always 1).",
        "How many images this hospital trains on. Nothing of a single patient.",
    ),
    "Status": KindWords(
        "Whether this site is connected, and the newest version of the head that it holds. The one with "
        "which the broker announces a lost connection is left with the broker beforehand.",
        _NOTHING,
    ),
    "Abstain": KindWords(
        "That nothing is sent in a round, and why.",
        "The reason may tell that this site has few images. Nothing of a single patient.",
    ),
    "Metrics": KindWords(
        "How good a version is on this site's validation images: accuracies and counts of images, of which "
        "small ones are left out.",
        "Figures over many images. An accuracy over few images can tell of single ones; the policy says "
        "below which number none is told, and can keep the message from being sent.",
    ),
    "BlockRequest": KindWords("Which parts of an announced head are missing here.", _NOTHING),
    "HeadRequest": KindWords("Which version of the head is here.", _NOTHING),
    "State": KindWords(
        "Signed messages of the aggregator that this site kept, for one that lost its own state.", _NOTHING
    ),
    "RenewalRequest": KindWords("A public key, to be certified anew.", _NOTHING),
    "EnrolmentRequest": KindWords(
        "This site's public keys and certificate request, name, version of the software, and how many "
        "labelled images it has.",
        "How many labelled images this hospital has. Nothing of a single patient.",
    ),
    "MaskKeys": KindWords("Public keys, made for one sum.", _NOTHING),
    "MaskShares": KindWords("Shares of this site's keys for one sum, sealed for its peers.", _NOTHING),
    "MaskedUpdate": KindWords("An update under masks.", _MASKED),
    "Confirmation": KindWords("Whose masked updates a sum is of, signed.", _NOTHING),
    "Reveal": KindWords(
        "Shares with which the masks of a sum, and of no single update, are undone.", _NOTHING
    ),
    "Complaint": KindWords("That what another site made for a sum cannot be used.", _NOTHING),
}

UNKNOWN = KindWords("See the protocol.", "Not known to this version of the report.")
