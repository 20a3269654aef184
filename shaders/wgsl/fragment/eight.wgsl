// Fragments of 8 x 8, as simdgroups have them.

enable wgpu_cooperative_matrix;
enable f16;

const FRAGMENT: u32 = 8u;

alias frag_x_t = coop_mat8x8<f16, A>;
alias frag_w_t = coop_mat8x8<f16, B>;
alias frag_sum_t = coop_mat8x8<f32, C>;
