// Switches for what is drawn over pictures, such as all outlines.
by("legend").hidden = false;
by("legend").onchange = ({ target }) => {
  document.querySelectorAll(`.field ${target.dataset.shows}`).forEach((shape) => {
    shape.toggleAttribute("hidden", !target.checked);
  });
};
