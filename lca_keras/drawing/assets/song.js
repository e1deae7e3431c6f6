const song = JSON.parse(document.getElementById("song").textContent);
const audio = document.querySelector("audio");
const close = document.getElementById("close");
const film = close.querySelector(".film");
const now = document.getElementById("now");
film.style.width = song.seconds * song.bar + "px";
document.querySelector("#whole .film").style.width = "100%";
function clipAt(time) {
  return song.clips.find((clip) => clip.start <= time && time < clip.end);
}
function show() {
  const time = audio.currentTime;
  const middle = close.clientWidth / 2;
  film.style.transform = `translateX(${middle - time * song.bar}px)`;
  close.querySelector(".head").style.left = middle + "px";
  const share = Math.min(1, time / song.seconds);
  document.querySelector("#whole .head").style.left = 100 * share + "%";
  const clip = clipAt(time);
  now.textContent = clip
    ? `${clip.start.toFixed(1)} to ${clip.end.toFixed(1)} s: ${clip.singer}, ` +
      `${(100 * clip.probability).toFixed(0)} %`
    : `${time.toFixed(1)} s: not part of a clip`;
}
function play() { show(); if (!audio.paused) requestAnimationFrame(play); }
for (const event of ["seeked", "timeupdate", "loadedmetadata"]) {
  audio.addEventListener(event, show);
}
audio.addEventListener("play", play);
addEventListener("resize", show);
document.getElementById("whole").addEventListener("click", (event) => {
  const box = event.currentTarget.getBoundingClientRect();
  audio.currentTime = song.seconds * (event.clientX - box.left) / box.width;
});
close.addEventListener("click", (event) => {
  const box = close.getBoundingClientRect();
  const shift = (event.clientX - box.left - box.width / 2) / song.bar;
  audio.currentTime = Math.max(0, Math.min(song.seconds, audio.currentTime + shift));
});
for (const choice of document.querySelectorAll("input[name=map]")) {
  choice.addEventListener("change", () => {
    for (const layer of document.querySelectorAll("[data-map]")) {
      layer.hidden = layer.dataset.map !== choice.value;
      layer.style.display = layer.hidden ? "none" : "flex";
    }
  });
}
show();
