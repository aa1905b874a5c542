"""From a waveform to audio features at the video's frame rate."""
