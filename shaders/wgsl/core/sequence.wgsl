// Words of a sequence of tokens: how many tokens are done, the token that was drawn last, and, from SEQUENCE_IDS on, the ids of all.

const SEQUENCE_DONE: u32 = 0u;
const SEQUENCE_DRAWN: u32 = 1u;
const SEQUENCE_IDS: u32 = 4u;
